"""How the report looks."""

STYLE = """
:root { color-scheme: light; }
body { margin: 0; background: #fff; color: #1a1a1a; font: 15px/1.45 system-ui, sans-serif; }
main { max-width: 1000px; margin: 0 auto; padding: 24px 20px 60px; }
h1 { font-size: 26px; margin: 0 0 8px; }
h2 { font-size: 20px; margin: 34px 0 8px; padding-top: 8px; border-top: 2px solid #1a1a1a; }
h2.bag { overflow-wrap: anywhere; }
h3 { font-size: 15px; margin: 20px 0 4px; }
p { margin: 6px 0; }
.good { color: #006644; font-weight: 600; }
.bad { color: #990000; font-weight: 600; }
.none { color: #666; }
table { border-collapse: collapse; margin: 8px 0; font-size: 14px; }
th, td { padding: 3px 10px; border-bottom: 1px solid #ddd; text-align: right; }
th { border-bottom: 2px solid #888; }
th:first-child, td:first-child, .text { text-align: left; }
td.text { overflow-wrap: anywhere; max-width: 420px; }
tr.group td { padding-top: 12px; font-weight: 600; border-bottom: 1px solid #888; }
svg.plot { display: block; width: 100%; height: auto; font: 11px system-ui, sans-serif; }
svg .frame { fill: #fafafa; stroke: #bbb; }
svg .grid { stroke: #e4e4e4; }
svg .mark { stroke: #d55e00; stroke-width: 1.4; opacity: 0.75; }
svg text { fill: #444; }
svg .row { text-anchor: end; }
svg .column { text-anchor: middle; }
.legend { font-size: 12px; color: #444; margin: 0 0 6px 58px; }
.key { margin-right: 16px; white-space: nowrap; }
.strip { display: grid; grid-template-columns: repeat(auto-fill, minmax(300px, 1fr)); gap: 12px; }
figure { margin: 0; }
figure img { width: 100%; display: block; border: 1px solid #ccc; }
figcaption { font-size: 12px; color: #444; }
ul { margin: 6px 0; padding-left: 20px; }
@media print { h2 { break-after: avoid; } figure, svg { break-inside: avoid; } }
"""

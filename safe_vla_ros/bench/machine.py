"""What a benchmark ran on, and how much memory it took."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import torch
import transformers

_GIB = 2**30


def describe_machine(device: torch.device) -> dict[str, object]:
    """Name processor, memory and versions; what matters for matrix products first."""
    facts: dict[str, object] = {
        'processor': _processor(),
        'cores': len(os.sched_getaffinity(0)),
        'matrix_instructions': [flag for flag in _FLAGS if flag in _cpu_flags()],
        'threads': torch.get_num_threads(),
        'memory_gib': round(os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / _GIB, 1),
        'load_average_at_start': [round(value, 2) for value in os.getloadavg()],
        'python': platform.python_version(),
        'torch': torch.__version__,
        'transformers': transformers.__version__,
    }
    if device.type == 'cuda':
        facts['gpu'] = torch.cuda.get_device_name(device)
        facts['cuda'] = torch.version.cuda
    return facts


_FLAGS = ('amx_bf16', 'avx512_bf16', 'avx512_fp16', 'avx512f', 'avx2', 'asimd', 'sve')


def _cpu_flags() -> set[str]:
    try:
        lines = Path('/proc/cpuinfo').read_text(encoding='utf-8').splitlines()
    except OSError:
        return set()
    names = ('flags', 'Features')
    return {flag for line in lines if line.startswith(names) for flag in line.split(':')[1].split()}


def _processor() -> str:
    try:
        for line in Path('/proc/cpuinfo').read_text(encoding='utf-8').splitlines():
            if line.startswith('model name'):
                return line.split(':', 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


class PeakMemory:
    """Highest memory of a stretch of the program, where the system can tell."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def restart(self) -> None:
        """Begin a new stretch."""
        if self._device.type == 'cuda':
            torch.cuda.reset_peak_memory_stats(self._device)
            return
        try:
            # Linux: 5 sets the high-water mark of this process to what it holds now.
            Path('/proc/self/clear_refs').write_text('5', encoding='ascii')
        except OSError:
            return

    def gib(self) -> float | None:
        """Return the peak since ``restart``, GiB; since the start where that cannot be set."""
        if self._device.type == 'cuda':
            return torch.cuda.max_memory_allocated(self._device) / _GIB
        return _status_gib('VmHWM')


def resident_gib() -> float:
    """Return what this process holds in memory now, GiB; 0 where the system does not say."""
    return _status_gib('VmRSS') or 0.0


def _status_gib(field: str) -> float | None:
    try:
        for line in Path('/proc/self/status').read_text(encoding='ascii').splitlines():
            if line.startswith(field):
                return int(line.split()[1]) * 1024 / _GIB
    except OSError:
        pass
    return None

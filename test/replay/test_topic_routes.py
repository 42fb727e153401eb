import pytest

from safe_vla_ros.replay.bags import TopicType
from safe_vla_ros.replay.errors import BagError, ReplayError
from safe_vla_ros.replay.topic_routes import (
    COMPRESSED,
    IMAGE,
    TYPES,
    Wanted,
    find_routes,
    parse_overrides,
    read_remappings,
)

BASIC = (
    TopicType('/corner/image_raw', IMAGE, 10),
    TopicType('/ee_pose', TYPES['ee_pose'], 20),
    TopicType('/instruction', TYPES['instruction'], 1),
)


def wanted(**changes):
    values = {
        'cameras': ('corner',),
        'transport': 'raw',
        'required': frozenset({'ee_pose', 'instruction'}),
    }
    return Wanted(**{**values, **changes})


def topics_of(routes):
    return {route.camera or route.part: route.topic for route in routes.by_topic.values()}


def test_topics_are_found_by_the_nodes_own_names():
    routes = find_routes(BASIC, wanted())
    assert topics_of(routes) == {
        'corner': '/corner/image_raw',
        'ee_pose': '/ee_pose',
        'instruction': '/instruction',
    }
    assert not routes.notes


def test_a_namespace_is_found_and_noted():
    spaced = [TopicType(f'/left{t.topic}', t.msgtype, t.messages) for t in BASIC]
    routes = find_routes(spaced, wanted())
    assert topics_of(routes)['corner'] == '/left/corner/image_raw'
    assert any('/left/ee_pose' in note for note in routes.notes)


def test_two_namespaces_are_ambiguous():
    spaced = [
        TopicType(f'/{side}{t.topic}', t.msgtype, t.messages) for t in BASIC for side in ('a', 'b')
    ]
    with pytest.raises(BagError, match='/a/ee_pose or /b/ee_pose'):
        find_routes(spaced, wanted())


def test_remappings_go_before_names():
    available = (*BASIC, TopicType('/front/color', IMAGE, 3))
    routes = find_routes(available, wanted(remappings={'corner/image_raw': '/front/color'}))
    assert topics_of(routes)['corner'] == '/front/color'


def test_overrides_go_before_remappings():
    available = (*BASIC, TopicType('/a', IMAGE, 3), TopicType('/b', COMPRESSED, 3))
    routes = find_routes(
        available,
        wanted(remappings={'corner/image_raw': '/a'}, overrides={'corner': '/b'}),
    )
    assert topics_of(routes)['corner'] == '/b'
    assert routes.by_topic['/b'].msgtype == COMPRESSED


def test_an_empty_override_leaves_an_input_out():
    routes = find_routes(
        BASIC, wanted(required=frozenset(), overrides={'instruction': '', 'ee_pose': ''})
    )
    assert topics_of(routes) == {'corner': '/corner/image_raw'}


@pytest.mark.parametrize(('transport', 'taken'), [('raw', IMAGE), ('compressed', COMPRESSED)])
def test_transport_decides_where_the_bag_has_both(transport, taken):
    available = (*BASIC, TopicType('/corner/image_raw/compressed', COMPRESSED, 10))
    routes = find_routes(available, wanted(transport=transport))
    assert [r.msgtype for r in routes.by_topic.values() if r.part == 'image'] == [taken]


@pytest.mark.parametrize('transport', ['raw', 'compressed'])
def test_the_other_transport_is_taken_where_the_bag_has_only_that(transport):
    image = (
        TopicType('/corner/image_raw/compressed', COMPRESSED, 10)
        if transport == 'raw'
        else TopicType('/corner/image_raw', IMAGE, 10)
    )
    routes = find_routes((image, *BASIC[1:]), wanted(transport=transport))
    assert topics_of(routes)['corner'] == image.topic
    assert len(routes.notes) == 1


def test_everything_missing_is_named_at_once_with_what_the_bag_has():
    available = (TopicType('/some/picture', IMAGE, 5),)
    with pytest.raises(BagError) as caught:
        find_routes(available, wanted(cameras=('corner', 'gripper')))
    text = str(caught.value)
    for part in ('corner', 'gripper', 'ee_pose', 'instruction', '/some/picture'):
        assert part in text


def test_a_topic_of_another_type_is_refused():
    available = (TopicType('/corner/image_raw', 'std_msgs/msg/String', 5), *BASIC[1:])
    with pytest.raises(BagError, match='is std_msgs/msg/String, allowed is sensor_msgs/msg/Image'):
        find_routes(available, wanted())


def test_a_second_type_on_a_topic_is_skipped_and_counted():
    available = (*BASIC, TopicType('/corner/image_raw', 'std_msgs/msg/String', 7))
    routes = find_routes(available, wanted())
    assert routes.by_topic['/corner/image_raw'].msgtype == IMAGE
    assert any('7 messages std_msgs/msg/String were skipped' in note for note in routes.notes)


def test_recorded_commands_are_found_under_the_nodes_name_and_servos():
    for name in ('/pruned_policy/ee_twist', '/servo_node/delta_twist_cmds'):
        routes = find_routes((*BASIC, TopicType(name, TYPES['recorded_twist'], 4)), wanted())
        assert topics_of(routes)['recorded_twist'] == name


def test_optional_parts_of_another_type_are_left_out():
    available = (*BASIC, TopicType('/x/gripper', 'std_msgs/msg/Bool', 4))
    assert 'recorded_gripper' not in topics_of(find_routes(available, wanted()))


def test_one_topic_cannot_play_two_parts():
    with pytest.raises(BagError, match='two things at once'):
        find_routes(
            BASIC,
            wanted(
                cameras=('corner', 'gripper'),
                overrides={'corner': '/corner/image_raw', 'gripper': '/corner/image_raw'},
            ),
        )


@pytest.mark.parametrize('item', ['corner', 'nothing=/a', '=/a'])
def test_malformed_overrides_are_refused_with_what_is_allowed(item):
    with pytest.raises(ReplayError, match='corner, instruction'):
        parse_overrides([item], ['corner'])


def test_overrides_are_read():
    assert parse_overrides(['corner=/a', 'instruction='], ['corner']) == {
        'corner': '/a',
        'instruction': '',
    }


def test_remappings_are_read_from_the_robots_file(tmp_path):
    path = tmp_path / 'robot.yaml'
    path.write_text(
        '/**:\n  ros__parameters:\n    policy: mini\n'
        'remappings:\n  ros__parameters:\n    corner/image_raw: /front\n'
    )
    assert read_remappings(path) == {'corner/image_raw': '/front'}
    path.write_text('/**:\n  ros__parameters: {}\n')
    assert read_remappings(path) == {}
    path.write_text('remappings: [1]\n')
    with pytest.raises(ReplayError, match='must map names to topics'):
        read_remappings(path)


@pytest.mark.parametrize('content', [None, 'a: [1', b'\xff\xfe'])
def test_a_file_that_cannot_be_read_is_named(tmp_path, content):
    path = tmp_path / 'robot.yaml'
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ReplayError, match=r'robot\.yaml (cannot be read|is missing)'):
        read_remappings(path)

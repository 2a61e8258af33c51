from flow_samples import Event, sample_names

from sixfold.observe import FlowFilter, FlowLog, join

ANY = FlowFilter()


def log_of(capacity: int) -> FlowLog:
    names = sample_names()
    return FlowLog(lambda raw: join(Event(time_ns=int(raw) * 10**9), names, 0), capacity=capacity)


def seconds(flows):
    return [flow.time_ns // 10**9 for flow in flows]


def events(first: int, last: int) -> list[bytes]:
    return [b"%d" % number for number in range(first, last + 1)]


def test_the_last_flows_come_oldest_first():
    log = log_of(10)
    log.extend(events(1, 5))
    assert seconds(log.last(ANY, 2)) == [4, 5]
    assert seconds(log.last(ANY)) == [1, 2, 3, 4, 5]
    assert log.last(ANY, 0) == []


def test_the_ring_keeps_the_newest_and_counts_all():
    log = log_of(3)
    log.extend(events(1, 5), lost=7)
    assert seconds(log.last(ANY)) == [3, 4, 5]
    assert (log.seen, log.lost, len(log)) == (5, 7, 3)


def test_a_follower_reads_each_flow_once():
    log = log_of(10)
    log.extend(events(1, 3))
    batch = log.read(log.seen)
    assert batch.flows == ()
    log.extend(events(4, 6))
    batch = log.read(batch.cursor)
    assert (seconds(batch.flows), batch.missed) == ([4, 5, 6], 0)
    assert log.read(batch.cursor).flows == ()


def test_a_slow_follower_is_told_how_many_it_missed():
    log = log_of(3)
    log.extend(events(1, 10))
    batch = log.read(2)
    assert (seconds(batch.flows), batch.missed) == ([8, 9, 10], 5)


def test_a_read_is_bounded_and_goes_on_where_it_stopped():
    log = log_of(10)
    log.extend(events(1, 5))
    first = log.read(0, limit=2)
    assert seconds(first.flows) == [1, 2]
    assert seconds(log.read(first.cursor, limit=2).flows) == [3, 4]


def test_since_stops_decoding_what_is_older():
    decoded = []
    names = sample_names()

    def decode(raw: bytes):
        decoded.append(raw)
        return join(Event(time_ns=int(raw) * 10**9), names, 0)

    log = FlowLog(decode, capacity=9000)
    log.extend(events(1, 9000))
    flows = log.last(FlowFilter(since_ns=8998 * 10**9))
    assert seconds(flows) == [8998, 8999, 9000]
    assert len(decoded) < 3000


def test_what_is_told_late_does_not_end_a_search():
    log = log_of(100)
    log.extend([*events(1, 50), *events(3, 3), *events(51, 52)])
    assert seconds(log.last(FlowFilter(since_ns=49 * 10**9))) == [49, 50, 51, 52]


def test_a_search_pauses_on_its_way_and_is_not_disturbed_by_what_comes_in_between():
    log = log_of(100)
    log.extend(events(1, 100))
    search = log.search(ANY, 60)
    pauses = 0
    for _ in search.steps(events=10):
        pauses += 1
        log.extend(events(200, 210))
    assert pauses == 6
    assert seconds(search.found) == list(range(41, 101))

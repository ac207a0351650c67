from fedpace.engines.clock import VirtualClock


def test_events_come_in_the_order_of_their_times_and_ties_in_the_order_they_were_scheduled():
    clock = VirtualClock(now=10.0)
    for delay, event in ((2.0, "c"), (1.0, "a"), (1.0, "b")):
        clock.schedule(delay, event)
    assert [(clock.next_event(), clock.now) for _ in range(3)] == [
        ("a", 11.0), ("b", 11.0), ("c", 12.0),
    ]  # fmt: skip
    assert len(clock) == 0

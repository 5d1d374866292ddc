"""Who is next, by hand: cheap flows first, in a flow what has not run, then what is small, then what came first."""

from hypothesis import given
from hypothesis import strategies as st

from rewards.sandbox.fair_queue import MOST_INTERRUPTIONS, FairQueue, Flow, Job


def job(number, flow=None, *, size=10, interruptions=0):
    return Job(
        request={},
        size=size,
        seconds=1.0,
        cpu_seconds=1.0,
        flow=flow or Flow(),
        number=number,
        interruptions=interruptions,
    )


def drain(queue):
    found = []
    while (one := queue.pop()) is not None:
        found.append(one.number)
    return found


def test_first_come_first_served_where_nothing_is_known():
    queue = FairQueue()
    for number in (3, 1, 2):
        queue.put(job(number))
    assert len(queue) == 3
    assert drain(queue) == [1, 2, 3]
    assert len(queue) == 0


def test_a_flow_that_has_been_cheap_goes_before_one_that_has_been_costly():
    queue, costly, cheap = FairQueue(), Flow(), Flow()
    for number in range(4):
        queue.put(job(number, costly))
    first = queue.pop()
    queue.charge(first, 0.05)
    for number in range(10, 13):
        queue.put(job(number, cheap))
    queue.charge(job(99, cheap), 0.004)
    assert drain(queue) == [10, 11, 12, 1, 2, 3]


def test_it_is_the_mean_that_counts_so_a_large_batch_is_not_held_back():
    queue, large, costly = FairQueue(), Flow(), Flow()
    for number in range(100):
        queue.charge(job(number, large), 0.004)  # 0.4 s in all
    queue.charge(job(0, costly), 0.05)
    queue.put(job(1, costly))
    queue.put(job(2, large))
    assert drain(queue) == [2, 1]


def test_in_a_flow_the_interrupted_come_last_and_the_small_come_first():
    queue, flow = FairQueue(), Flow()
    queue.put(job(1, flow, interruptions=1))
    queue.put(job(2, flow, size=700))
    queue.put(job(3, flow, size=30))
    queue.put(job(4, flow, size=20))  # within a factor of two of 30: as they came
    assert drain(queue) == [3, 4, 2, 1]


def test_who_makes_place_for_whom():
    queue, flow = FairQueue(), Flow()
    running = job(1, flow)
    assert not queue.interrupts(running)
    queue.put(job(2, flow, interruptions=1))
    assert not queue.interrupts(running)  # one like it, which has had its slice too
    queue.put(job(3, flow))
    assert queue.interrupts(running)
    assert not queue.interrupts(job(4, flow, interruptions=MOST_INTERRUPTIONS))
    other = FairQueue()
    other.put(job(5))
    other.charge(running, 0.5)
    assert other.interrupts(running)


def test_an_interrupted_run_counts_as_one():
    queue, flow = FairQueue(), Flow()
    again = job(1, flow)
    queue.charge(again, 0.05)
    again.interruptions = 1
    queue.charge(again, 0.35)
    queue.charge(job(2, other := Flow()), 0.3)
    queue.put(job(3, flow))
    queue.put(job(4, other))
    assert drain(queue) == [4, 3]  # 0.3 s against 0.4 s


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5), st.floats(0, 1)), max_size=60))
def test_nothing_is_lost_whatever_happens(steps):
    queue, flows, inside, number = FairQueue(), [Flow() for _ in range(4)], set(), 0
    for which, action, seconds in steps:
        if action < 3:
            number += 1
            queue.put(job(number, flows[which], size=int(seconds * 100)))
            inside.add(number)
        elif action == 3:
            queue.charge(job(0, flows[which]), seconds)
        elif (one := queue.pop()) is not None:
            inside.remove(one.number)
        assert len(queue) == len(inside)
    assert sorted(drain(queue)) == sorted(inside)

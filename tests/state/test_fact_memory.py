"""Facts about deployments, kept for a while."""

import threading

from app.core.routing import CompletionMode
from app.planning.learned_facts import NO_FACTS, LearnedFacts
from app.state.fact_memory import FactMemory

CHATS = LearnedFacts(only_chats=True)
REFUSED = NO_FACTS.refusing(CompletionMode.CHAT, "max_tokens")


class FakeClock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def find(memory: FactMemory, key: str) -> LearnedFacts:
    return memory.find(lambda: key)


def test_facts_expire_after_lifetime() -> None:
    clock = FakeClock()
    memory = FactMemory(clock, lifetime=60)
    memory.learn("a", CHATS)
    clock.now = 59.0
    memory.learn("b", REFUSED)

    assert (find(memory, "a"), find(memory, "b")) == (CHATS, REFUSED)
    clock.now = 60.0
    assert (find(memory, "a"), find(memory, "b")) == (NO_FACTS, REFUSED)
    assert find(memory, "c") == NO_FACTS


def test_facts_learned_first_are_dropped() -> None:
    memory = FactMemory(max_deployments=2)
    for key in ("a", "b", "a", "c"):
        memory.learn(key, CHATS)

    assert [find(memory, key) for key in "abc"] == [CHATS, NO_FACTS, CHATS]


def test_empty_memory_computes_no_key() -> None:
    def key() -> str:
        raise AssertionError

    assert FactMemory().find(key) == NO_FACTS


def test_threads_learn_side_by_side() -> None:
    memory = FactMemory(max_deployments=50)

    def learn(number: int) -> None:
        for i in range(500):
            memory.learn(f"{number}-{i}", CHATS)
            find(memory, f"{number}-{i}")

    threads = [threading.Thread(target=learn, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    kept = [find(memory, f"{n}-{i}") for n in range(4) for i in range(500)]
    assert kept.count(CHATS) == 50

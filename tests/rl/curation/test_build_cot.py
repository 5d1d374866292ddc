"""`thinkvl build-cot`: which samples become worked solutions, and what is written; a chat server has fixed rules."""

import io
import json
import re

import pyarrow.parquet as pq
import pytest
from chat_stand_in import chat_server, says, square, write_rows

from configs.data import SourceConfig
from configs.errors import UserError
from configs.prompt import PromptConfig
from rewards.types import VerdictKind
from rl.curation.build_cot import NONE_KEPT, CotOptions, build_cot_command
from rl.curation.chains import (
    CONTROL,
    CUT_OFF,
    LONGER,
    NO_THINKING,
    REPEATS,
    TWIN,
    UNJUDGED,
    WRONG,
    Chain,
    chain_of,
    shortest,
)
from rl.curation.chat_server import ServerOptions
from rl.curation.inputs import DataOptions
from rl.curation.model_options import SamplingOptions
from rl.curation.sampling import ScoredCompletion
from rl.run.console import PlainConsole
from rollouts.tasks.mixture import TaskMixture
from rollouts.tasks.prompts import target_text

LOOP = "so I add three and four and then I look at the picture again, " * 12


def sample(text, verdict=VerdictKind.CORRECT, finish="stop", tokens=9):
    return ScoredCompletion(verdict=verdict, tokens=tokens, finish_reason=finish, thinks=True, text=text)


class TestChains:
    @pytest.mark.parametrize(
        ("text", "thinking", "response"),
        [
            ("◁think▷ I add. ◁/think▷The answer is 7.", "I add.", "The answer is 7."),
            ("<think>\nI add.\n</think>\n\n7", "I add.", "7"),
            ("I add 3 and 4.\nThat gives 7.\nAnswer: 7", "I add 3 and 4.\nThat gives 7.", "Answer: 7"),
        ],
    )
    def test_thinking_is_what_comes_before_the_answer(self, text, thinking, response):
        assert chain_of(sample(text), most_repetition=0.4) == Chain(thinking=thinking, response=response, tokens=9)

    @pytest.mark.parametrize(
        ("made", "reason"),
        [
            (sample("◁think▷a◁/think▷7", VerdictKind.WRONG), WRONG),
            (sample("◁think▷a", VerdictKind.NO_ANSWER), WRONG),
            (sample("◁think▷a◁/think▷7", VerdictKind.CRASH), UNJUDGED),
            (sample("◁think▷a◁/think▷7", finish="length"), CUT_OFF),
            (sample("◁think▷a◁/think▷7", finish="repeat"), REPEATS),
            (sample("7"), NO_THINKING),
            (sample("◁think▷ ◁/think▷7"), NO_THINKING),
            (sample(f"◁think▷{LOOP}◁/think▷7"), REPEATS),
            (sample("◁think▷I say <answer>7</answer> now.◁/think▷7"), CONTROL),
            (sample("◁think▷I end.<|im_end|>◁/think▷7"), CONTROL),
            (sample("◁think▷a◁/think▷b◁think▷c◁/think▷7"), CONTROL),
        ],
    )
    def test_a_sample_that_is_no_solution(self, made, reason):
        assert chain_of(made, most_repetition=0.4) == reason

    def test_how_much_may_repeat(self):
        text = "◁think▷one two three four five six one two three four seven eight◁/think▷7"  # 1 of 9 4-grams
        assert isinstance(chain_of(sample(text), most_repetition=0.12), Chain)
        assert chain_of(sample(text), most_repetition=0.1) == REPEATS

    def test_the_shortest_of_different_texts(self):
        chains = [
            Chain(thinking=t, response="7", tokens=n) for t, n in (("c", 9), ("a", 5), ("b", 3), ("b", 4), ("a", 5))
        ]
        kept, others = shortest(chains, 2)
        assert [(chain.thinking, chain.tokens) for chain in kept] == [("b", 3), ("a", 5)]
        assert others == {TWIN: 2, LONGER: 1}


def teacher(question, seed):
    """3 + 4 is solved in chains of many lengths; 1 + 1 never; 2 + 2 in loops alone; all others in one chain."""
    a, b = map(int, re.search(r"(\d+) \+ (\d+)", question).groups())
    steps = "Wait, I look again. " * (seed % 4) if a == 3 else LOOP if a == 2 else "First, I add. Let me check: yes."
    return says(str(a + b) if a != 1 else "0", thought=f"{a} + {b}: {steps}")


def sums(*pairs, **more):
    return [{"question": f"What is {a} + {b}?", "answer": str(a + b), **more} for a, b in pairs]


@pytest.fixture
def build(tmp_path, monkeypatch):
    """`build(rows, most=2)` gives (what was printed, the report, the rows of the output, the requests)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")

    def call(rows, *, answer=teacher, **more):
        write_rows(tmp_path / "sums.jsonl", rows)
        with chat_server(answer) as server:
            options = CotOptions(
                output=tmp_path / "cot.parquet",
                data=DataOptions(data="sums.jsonl"),
                model=SamplingOptions(server=ServerOptions(url=server.url, model="teacher", connections=4), seed=1),
                **more,
            )
            printed = io.StringIO()
            build_cot_command(options, PlainConsole(file=printed, width=120))
        report = json.loads((tmp_path / "cot.report.json").read_text())
        return printed.getvalue(), report, pq.read_table(tmp_path / "cot.parquet").to_pylist(), server.bodies

    return call


def test_solutions_with_their_provenance(build):
    printed, report, rows, bodies = build(sums((3, 4), (1, 1), (2, 2), (5, 1)), level_share=1.0)
    assert len(bodies) == 4 * 8
    assert {row["question"]: row["answer"] for row in rows} == {"What is 3 + 4?": "7", "What is 5 + 1?": "6"}
    by_sum = {row["answer"]: row for row in rows}
    shortest_wait = min(body["seed"] % 4 for body in bodies if "3 + 4" in body["question"])
    assert by_sum["7"]["solution"].count("Wait") == by_sum["7"]["patterns"]["reflection"] == shortest_wait
    assert by_sum["6"]["patterns"] == {"planning": 1, "evaluation": 1, "reflection": 0, "exploration": 0}
    assert by_sum["6"]["response"] == "6"
    assert by_sum["6"]["difficulty"] == 0
    provenance = by_sum["6"]["provenance"]
    assert (provenance["samples"], provenance["correct"], provenance["verifier"]) == (8, 8, "math")
    assert (provenance["seed"], provenance["temperature"]) == (1, 1.0)
    assert provenance["model"].startswith("teacher at http")
    outcomes = report["samples_by_outcome"]
    thrice = sum(body["seed"] % 4 == 3 for body in bodies if "3 + 4" in body["question"])
    assert (outcomes["kept"], outcomes[WRONG], outcomes[REPEATS]) == (2, 8, 8 + thrice)
    assert report["left_out"][NONE_KEPT]["count"] == 2
    assert (report["prompts"], report["solutions"]) == (2, 2)
    assert "2 solutions of 2 prompts" in printed


def test_every_sample_is_counted_once(build):
    _, report, _, bodies = build(sums((3, 4), (1, 1), (2, 2), (5, 1)), level_share=1.0, most=2)
    assert sum(report["samples_by_outcome"].values()) == len(bodies)


def test_at_most_k_of_a_prompt(build):
    _, _, rows, bodies = build(sums((3, 4)), most=3)
    lengths = sorted({body["seed"] % 4 for body in bodies})[:3]
    assert [row["solution"].count("Wait") for row in rows] == lengths
    assert len({row["id"] for row in rows}) == len(rows)


def test_levels_of_difficulty_are_balanced(build):
    def half(question, seed):
        a, b = map(int, re.search(r"(\d+) \+ (\d+)", question).groups())
        easy = a < 50
        return says(str(a + b) if easy or seed % 2 else "0", thought=f"I add {a} and {b}.")

    rows = sums(*((i, 7) for i in range(20)), *((50 + i, 7) for i in range(4)))
    _, report, rows, _ = build(rows, answer=half, level_share=0.75)
    hard = sum(row["difficulty"] > 0 for row in rows)
    assert 0 < hard <= 4
    assert sum(row["difficulty"] == 0 for row in rows) <= 3 * hard
    assert report["left_out"]["over the share of its level"]["count"] == 24 - len(rows)


def test_a_stage_that_thinks_reads_the_set(build, tmp_path):
    (tmp_path / "a.png").write_bytes(square("red"))
    build(sums((5, 1), images=["a.png"], tags=["sums"]))
    [task] = TaskMixture([SourceConfig(use="cot.parquet")], seed=0, base=tmp_path).fixed(10)
    assert target_text(task, thinking=True) == "◁think▷5 + 1: First, I add. Let me check: yes.◁/think▷6"
    assert (task.images, task.tags) == ((square("red"),), ("sums",))


def test_a_prompt_asks_for_long_thinking_and_is_not_written(build):
    prompt = PromptConfig(system="Think long.", template="{question}\nPlan, then check.")
    _, _, rows, bodies = build(sums((5, 1)), prompt=prompt)
    assert bodies[0]["messages"][0] == {"role": "system", "content": "Think long."}
    assert bodies[0]["question"] == "What is 5 + 1?\nPlan, then check."
    assert rows[0]["question"] == "What is 5 + 1?"


def test_choices_may_be_solved(build):
    rows = [{"question": "What is 5 + 1?", "answer": "6", "choices": ["5", "6"]}]
    _, _, [row], _ = build(rows, answer=lambda *_: says("B", thought="I add."))
    assert (row["answer"], row["choices"], row["verifier"]) == ("B", ["5", "6"], "choice")


def test_no_solution_at_all(build, tmp_path):
    with pytest.raises(UserError, match=r"no solution of 1 prompt stays: no sample is right and well-formed \(1\)"):
        build(sums((1, 1)))
    assert not (tmp_path / "cot.parquet").exists()


@pytest.mark.parametrize("more", [{"most_repetition": 2.0}, {"level_share": 1.5}])
def test_values_that_cannot_be(build, more):
    with pytest.raises(UserError, match="must be"):
        build(sums((5, 1)), **more)

"""Arguments and help of the commands that build data sets with a model: `curate`, `build-cot`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from configs.errors import UserError
from rl.cli.terminal import Allow, Overrides, console, stoppable

if TYPE_CHECKING:
    from rl.curation.inputs import DataOptions
    from rl.curation.model_options import SamplingOptions

# Torch, Ray and transformers are imported inside the commands: help and mistakes in a recipe show at once.

_AGAIN = "the same command continues"
_Data = Annotated[
    str, typer.Argument(metavar="DATA_OR_RECIPE", help="A recipe, a .jsonl or .parquet file, a built-in, a hub name.")
]
_Output = Annotated[Path, typer.Option("--output", "-o", metavar="OUT.parquet", help="The file to write.")]
_Model = Annotated[str | None, typer.Option(metavar="RUN_OR_MODEL", help="A run, a model's folder, or a hub id.")]
_Server = Annotated[str | None, typer.Option(metavar="URL", help="In place of --model: an OpenAI-compatible server.")]
_ServerModel = Annotated[str | None, typer.Option(metavar="NAME", help="The model's name at the server.")]
_KeyEnv = Annotated[str | None, typer.Option(metavar="NAME", help="The environment variable with the server's key.")]
_Against = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME[@SPLIT]", help="An evaluation data set or recipe that must not leak; repeatable."),
]
_Split = Annotated[str | None, typer.Option(help="Such as train[:10%]; by default train.")]
_Limit = Annotated[int | None, typer.Option(min=1, help="Tasks of each source; by default all, 1000 where endless.")]
_Column = Annotated[list[str] | None, typer.Option(metavar="OURS=THEIRS", help="Such as tags=domain; repeatable.")]
_Seed = Annotated[int, typer.Option(min=0, help="Seed of the samples and of the choice within caps.")]
_Temperature = Annotated[float, typer.Option(min=0.0, help="Sampling temperature.")]
_Tokens = Annotated[
    int | None, typer.Option(min=1, help="Token limit of a sample; by default as in the recipe or the run.")
]
_Workers = Annotated[int | None, typer.Option(min=1, help="Ray workers; by default as in the recipe or the run.")]
_Level = Annotated[float, typer.Option(help="Maximum share of prompts in one fifth of the pass rate.")]

_Samples = Annotated[int, typer.Option(min=1, help="Samples of each prompt.")]
_Guesses = Annotated[
    int, typer.Option(min=0, help="Answers without thinking, none of which may be correct; 0: no test.")
]
_GuessTemplate = Annotated[str | None, typer.Option(help="Their prompt: a text that holds {question}.")]
_KeepKind = Annotated[
    list[str] | None, typer.Option(metavar="KIND", help="Keep multiple_choice, true_false or proof; repeatable.")
]
_MinRate = Annotated[float, typer.Option(help="Leave out prompts with a lower pass rate.")]
_MaxRate = Annotated[float, typer.Option(help="Leave out prompts with a higher pass rate.")]
_PerTag = Annotated[
    list[str] | None,
    typer.Option(metavar="[TAG=]N", help="Maximum number of prompts of a tag, or of each tag; repeatable."),
]

_Most = Annotated[int, typer.Option(min=1, help="Maximum number of solutions per prompt; the shortest are kept.")]
_Repetition = Annotated[float, typer.Option(help="Maximum share of 4-grams that repeat an earlier one.")]
_System = Annotated[str | None, typer.Option(help="A system text in place of the recipe's.")]
_Template = Annotated[str | None, typer.Option(help="A text with {question}, in place of the recipe's template.")]


def curate(
    data: _Data,
    output: _Output,
    overrides: Overrides = None,
    model: _Model = None,
    server: _Server = None,
    server_model: _ServerModel = None,
    key_env: _KeyEnv = None,
    against: _Against = None,
    samples: _Samples = 10,
    guesses: _Guesses = 8,
    guess_template: _GuessTemplate = None,
    keep_kind: _KeepKind = None,
    min_pass_rate: _MinRate = 0.0,
    max_pass_rate: _MaxRate = 0.99,
    max_per_tag: _PerTag = None,
    level_share: _Level = 1.0,
    temperature: _Temperature = 1.0,
    max_new_tokens: _Tokens = None,
    seed: _Seed = 0,
    limit: _Limit = None,
    split: _Split = None,
    column: _Column = None,
    workers: _Workers = None,
    allow: Allow = None,
) -> None:
    """Choose prompts for RL as Kimi k1.5 does: their difficulty is 1 - the pass rate of 10 samples.

    Prompts are left out that the model solves in 8 tries without thinking, that are multiple choice, true or false,
    or proofs, and whose question or image is in an evaluation set.

    Example: `thinkvl curate my.yaml --model runs/sft -o data/curated.parquet --max-per-tag 2000`
    """
    with stoppable(_AGAIN):
        from rl.curation.curate import DIRECT, CurateOptions, curate_command

        options = CurateOptions(
            output=output,
            data=_data_options(data, overrides, split, limit, column, against, allow),
            model=_sampling(model, server, server_model, key_env, temperature, max_new_tokens, workers, seed),
            samples=samples,
            guesses=guesses,
            guess_template=guess_template or DIRECT,
            keep_kinds=tuple(keep_kind or ()),
            pass_rates=(min_pass_rate, max_pass_rate),
            caps=_caps(max_per_tag or ()),
            level_share=level_share,
        )
        curate_command(options, console)


def build_cot(
    data: _Data,
    output: _Output,
    overrides: Overrides = None,
    model: _Model = None,
    server: _Server = None,
    server_model: _ServerModel = None,
    key_env: _KeyEnv = None,
    against: _Against = None,
    samples: _Samples = 8,
    max_per_prompt: _Most = 1,
    max_repetition: _Repetition = 0.4,
    level_share: _Level = 0.4,
    system: _System = None,
    template: _Template = None,
    temperature: _Temperature = 1.0,
    max_new_tokens: _Tokens = None,
    seed: _Seed = 0,
    limit: _Limit = None,
    split: _Split = None,
    column: _Column = None,
    workers: _Workers = None,
    allow: Allow = None,
) -> None:
    """Build a set of worked solutions for long-CoT SFT: samples of a model whose answer verifies.

    The shortest correct samples of a prompt are kept, except truncated and repetitive ones. Levels of
    difficulty are balanced, and patterns of thinking are counted. A stage with `thinking_share` reads the output.

    Example: `thinkvl build-cot data/curated.parquet --model runs/teacher -o data/long_cot.parquet`
    """
    with stoppable(_AGAIN):
        from configs.prompt import PromptConfig
        from rl.curation.build_cot import CotOptions, build_cot_command

        try:
            prompt = PromptConfig(system=system, template=template)
        except ValueError as error:
            raise UserError(f"--{error}") from error
        options = CotOptions(
            output=output,
            data=_data_options(data, overrides, split, limit, column, against, allow),
            model=_sampling(model, server, server_model, key_env, temperature, max_new_tokens, workers, seed),
            samples=samples,
            most=max_per_prompt,
            most_repetition=max_repetition,
            level_share=level_share,
            prompt=prompt,
        )
        build_cot_command(options, console)


def _data_options(
    data: str,
    overrides: Sequence[str] | None,
    split: str | None,
    limit: int | None,
    columns: Sequence[str] | None,
    against: Sequence[str] | None,
    allowed: Sequence[str] | None,
) -> DataOptions:
    from rl.curation.inputs import DataOptions

    return DataOptions(
        data=data,
        overrides=tuple(overrides or ()),
        split=split,
        limit=limit,
        columns=tuple(columns or ()),
        against=tuple(against or ()),
        allowed=tuple(allowed or ()),
    )


def _sampling(
    model: str | None,
    url: str | None,
    server_model: str | None,
    key_env: str | None,
    temperature: float,
    max_new_tokens: int | None,
    workers: int | None,
    seed: int,
) -> SamplingOptions:
    """The sampling options. Raises UserError for a server without a model, or a local model with a server's options."""
    from rl.curation.chat_server import ServerOptions
    from rl.curation.model_options import SamplingOptions

    if (url is None) != (server_model is None) or (key_env is not None and url is None):
        raise UserError("--server URL and --server-model NAME go together, and --key-env NAME with them")
    server = ServerOptions(url=url, model=server_model, key_env=key_env) if url and server_model else None
    return SamplingOptions(
        model=model,
        server=server,
        temperature=temperature,
        max_new_tokens=max_new_tokens,
        workers=workers,
        seed=seed,
    )


def _caps(texts: Sequence[str]) -> dict[str, int]:
    """Parse caps: `geometry=500` for one tag, `2000` for all others (the key is then ""). Raises UserError."""
    caps: dict[str, int] = {}
    for text in texts:
        tag, equals, number = text.rpartition("=")
        if not (number.isascii() and number.isdigit() and (tag or not equals)):
            raise UserError(f"--max-per-tag {text}: must be a number, such as 2000, or a tag and one: geometry=500")
        caps[tag] = int(number)
    return caps

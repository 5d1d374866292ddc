"""The benchmarks by name. Where names and splits of the data are from stands in each adapter's file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from rollouts.tasks.benchmarks import (
    chartqa,
    clevr,
    geometry3k,
    mathverse,
    mathvision,
    mathvista,
    mmmu,
    ocrbench,
    videommmu,
)
from rollouts.tasks.benchmarks.layout import Benchmark

_MMMU_PRO = Benchmark(
    title="MMMU-Pro (standard, 10 options)",
    hub="MMMU/MMMU_Pro",
    subsets=("standard (10 options)",),
    split="test",
    read=mmmu.read_pro,
    metric="accuracy",
    rule="the letter of the option",
    vlmevalkit="MMMU_Pro_10c_COT",
    lmms_eval="mmmu_pro_standard_cot",
)

BENCHMARKS: Mapping[str, Benchmark] = {
    "mathvista": Benchmark(
        title="MathVista (testmini)",
        hub="AI4Math/MathVista",
        split="testmini",
        read=mathvista.read,
        metric="accuracy",
        rule="the option; a number cut to an integer or rounded to the precision; the same list",
        vlmevalkit="MathVista_MINI",
        lmms_eval="mathvista_testmini_solution",
    ),
    "mathvision": Benchmark(
        title="MATH-Vision",
        hub="MathLLMs/MathVision",
        split="test",
        read=mathvision.read,
        metric="accuracy",
        rule="the option's letter or value; equal formulas, values at two decimals",
        vlmevalkit="MathVision",
        lmms_eval="mathvision_test",
    ),
    "mmmu": Benchmark(
        title="MMMU (validation)",
        hub="MMMU/MMMU",
        subsets=mmmu.SUBJECTS,
        split="validation",
        read=mmmu.read,
        metric="accuracy",
        rule="the letter of the option; open: an accepted answer in a key phrase, numbers at two decimals",
        vlmevalkit="MMMU_DEV_VAL",
        lmms_eval="mmmu_val",
    ),
    "mmmu_pro": _MMMU_PRO,
    "mmmu_pro_vision": replace(
        _MMMU_PRO,
        title="MMMU-Pro (vision)",
        subsets=("vision",),
        vlmevalkit="MMMU_Pro_V_COT",
        lmms_eval="mmmu_pro_vision_cot",
    ),
    "mathverse": Benchmark(
        title="MathVerse (testmini)",
        hub="AI4Math/MathVerse",
        subsets=("testmini",),
        split="testmini",
        read=mathverse.read,
        metric="accuracy",
        rule="the option; an equal answer (officially judged by a language model)",
        vlmevalkit="MathVerse_MINI",
        lmms_eval="mathverse_testmini",
    ),
    "chartqa": Benchmark(
        title="ChartQA (test)",
        hub="lmms-lab/ChartQA",
        split="test",
        read=chartqa.read,
        metric="relaxed accuracy",
        rule="a number within 5 %; else the same text in any case",
        vlmevalkit="ChartQA_TEST",
        lmms_eval="chartqa",
    ),
    "geometry3k": Benchmark(
        title="Geometry3K (test)",
        hub="hiyouga/geometry3k",
        split="test",
        read=geometry3k.read,
        metric="accuracy",
        rule="a mathematically equal answer",
    ),
    "clevr_count": Benchmark(
        title="CLEVR counting (test)",
        hub="BUAADreamer/clevr_count_70k",
        split="test",
        read=clevr.read,
        metric="accuracy",
        rule="the same whole number",
    ),
    "ocrbench": Benchmark(
        title="OCRBench",
        hub="echo840/OCRBench",
        split="test",
        read=ocrbench.read,
        metric="accuracy (points / 1000)",
        rule="a reference anywhere in the response, in any case; formulas: without white space",
        vlmevalkit="OCRBench",
        lmms_eval="ocrbench",
    ),
    "videommmu": Benchmark(
        title="Video-MMMU",
        hub="lmms-lab/VideoMMMU",
        subsets=videommmu.TRACKS,
        split="test",
        read=videommmu.read,
        metric="accuracy",
        rule="as `mmmu`, with more key phrases",
        vlmevalkit="VideoMMMU",
        lmms_eval="video_mmmu",
    ),
}

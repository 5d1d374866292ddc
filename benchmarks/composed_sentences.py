"""Sentences around an answer, English and Chinese: those that leave it the answer, and those that do not.

In a frame `{}` is the answer and `{w}` another value of the same kind.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

from composed_values import Answer

BARE = ("{}", "{}.", "**{}**", "`{}`", "{}\n", "{}。", "*{}*")
BOXED = (
    "\\boxed{{{}}}", "$\\boxed{{{}}}$", "$$\\boxed{{{}}}$$", "\\[\\boxed{{{}}}\\]", "Therefore \\boxed{{{}}}.",
    "因此\\boxed{{{}}}。",
    "The final answer is: $\\boxed{{{}}}$. I hope it is correct.", "**Final Answer**\n\n\\boxed{{{}}}",
    "答案是\\boxed{{{}}}。",
    "\\boxed{{{}}}\n\nThis matches figure 3.", "\\boxed{{{}}}, as required", "<answer>\\boxed{{{}}}</answer>",
    "\\boxed{{ {} }}",
)  # fmt: skip
ANCHORED = (
    "The answer is {}.", "The final answer is {}.", "So the answer is {}.", "Therefore, the answer is **{}**.",
    "Answer: {}",
    "**Answer:** {}", "**Answer: {}**", "Final Answer: {}", "### Final Answer\n{}", "The correct answer is {}.",
    "ANSWER: {}",
    "<answer>{}</answer>", "<answer> {} </answer>", "#### {}", "The answer:\n\n{}", "My answer is {}",
    "The answer is:\n{}",
    "答案是{}。", "答案：{}", "答案为{}", "所以答案是{}。", "因此，最终答案为：{}。", "故答案为：{}。", "故答案为{}",
    "最终答案：{}", "【答案】{}", "正确答案是{}",
    "所以答案是**{}**。", "综上所述，答案是 {}。", "答案是：{}",
)  # fmt: skip
TRAILED = (
    "The answer is {}, as required.", "The answer is {} because the sides are equal.", "The answer is {} (see step 2).",
    "The answer is {}. This follows from figure 2.", "The answer is {}, since the picture shows it.",
    "The answer is {} ✅",
    "答案是{}，因为两边相等。", "答案是{}（见第2步）。", "答案是{}。这与图3一致。",
    "The answer is {}.\n\nLet me know if you need more steps!",
    "Answer: {}\n\nExplanation: we used rule 3.",
)  # fmt: skip
LED = (
    "Step 1: look at figure 2.\nStep 2: compute.\n\nThe answer is {}", "第一步：看图。\n第二步：计算。\n答案：{}",
    "由图1可知，答案是{}。",
    "From figure 1 and table 2, the answer is {}.", "1. Read the scale.\n2. Count.\n\nAnswer: {}",
    "根据第2步，答案是{}。",
)  # fmt: skip
VALUES = (  # sentences without the word answer, for numbers
    "It is {}.", "We get {}.", "Hence we obtain {}.", "The result is {}.", "The value is {}.", "Thus it equals {}.",
    "结果是{}。", "结果为{}",
    "等于{}。", "所以结果等于{}。", "最终结果：{}", "解得{}", "The total is {}, altogether.", "**Result: {}**",
    "So we have {}.", "即{}。",
    "After 3 steps, we get {}.", "With 2 rulers, the result is {}.", "Using the 4 points, we find {}.",
    "The result is {}, as claimed.",
)  # fmt: skip
LABELLED = (
    "x = {}",
    "So x = {}.",
    "**Area:** {}",
    "Area: {}",
    "The area is {}.",
    "The total is **{}**.",
    "∴ {}",
    "=> {}",
    "Ans: {}",
    "Hence, {}.",
    "Result = {}",
    "Solution: {}",
    "长度为{}",
    "所以共有{}。",
    "Therefore: {}",
    "✅ {}",
    "总数 = {}",
    "So, {}.",
    "答案应为{}。",
    "一共是{}。",
    "AB = {}",
    "The value of x is {}.",
    "We conclude that the length equals {}.",
    "x的值为{}。",
    "The number of ways is {}.",
    "得{}。",
    "Total: {}",
    "The length of AB is {}.",
    "it's {}",
    "Final result: {}",
    "We find it to be {}.",
    "= {}",
    "由此可得，结果为{}。",
    "故结果为{}。",
)
CHAINED = (
    "3 + 4 = {}",
    "x = 3 \\cdot 4 = {}",
    "So 2 × 6 = {}.",
    "$5 - 2 = {}$",
    "面积 = 3 × 4 = {}",
    "\\[ x = 3 + 4 = {} \\]",
)
BLOCKS = (
    "```\n{}\n```",
    '```json\n{{"answer": "{}"}}\n```',
    '{{"answer": "{}"}}',
    "$$\n{}\n$$",
    "\\[\n{}\n\\]",
    "| answer |\n|---|\n| {} |",
    "**Final Answer:**\n\n**{}**",
    "Final answer:\n{}",
    'The answer is "{}".',
    "答案是“{}”。",
    "最终答案：**{}**",
    "Answer:\n\n- {}",
)
CHOSEN = (
    "I choose {}.",
    "The correct option is {}.",
    "{} is correct.",
    "故选：{}。",
    "应选{}。",
    "因此选{}",
    "The best choice is {}.",
    "My choice: {}",
    "so {}",
    "Therefore, {} is the right choice.",
    "{} is the answer.",
    "The answer must be {}.",
    "所以正确选项是{}。",
    "So it must be {}.",
    "Hence the correct answer is {}.",
    "答案选{}。",
    "本题选{}",
    "**Answer**: {}",
    "Select {}.",
    "It's {}.",
    "I would go with {}.",
)
COUNTED = (
    "There are {} in the picture.",
    "I count {}.",
    "I can see {} here.",
    "图中有{}。",
    "图片中共有{}。",
    "There are {}.",
    "In total, {}.",
    "The count is {}.",
    "Altogether there are {}.",
    "一共有{}。",
    "So the number is {}.",
)
SAID = (
    "{}, it is.",
    "{}, because it fits.",
    "{}. The picture shows it.",
    "{}, there is.",
    "I think {}.",
    "So, {}.",
    "{}，因为图中显示如此。",
    "{}。图中可以看到。",
    "My answer is {}.",
    "Final answer: {}",
    "结论：{}",
)
RETRACTED = (  # the later one counts
    "The answer is {w}. Wait, that is wrong. The answer is {}.",
    "\\boxed{{{w}}}\n\nWait, I made a mistake.\n\n\\boxed{{{}}}",
    "Answer: {w}\n\nCorrection. Answer: {}", "答案是{w}。不对，重新计算。答案是{}。",
    "\\boxed{{{w}}}不对，应该是\\boxed{{{}}}。",
    "\\boxed{{{w}}}. No, I misread it. The answer is {}.",
    "First I thought that the answer is {w}.\n\nThe answer is {}.",
    "<answer>{w}</answer>\nActually no.\n<answer>{}</answer>", "The answer is not {w}. The answer is {}.",
)  # fmt: skip
REFUSED = (  # the answer is bounded, denied, hedged or taken back
    "The answer is not {}.", "The answer isn't {}.", "The answer is {} or {w}.", "The answer is either {} or {w}.",
    "答案不是{}。",
    "The answer could be {} or maybe {w}.", "答案是{}或{w}。", "The answer is {}. Wait, no. The answer is {w}.",
    "答案是{}。不对，答案是{w}。", "\\boxed{{{}}}\n\nNo, that is wrong.\n\n\\boxed{{{w}}}",
    "◁think▷The answer is \\boxed{{{}}}",
    "\\boxed{{{} \\text{{ or }} {w}}}", "\\boxed{{{}}} is wrong.", "\\boxed{{{w}}}", "The answer is {w}, not {}.",
    "Answer: {w} (not {})",
    "\\boxed{{\\text{{not }} {}}}", "\\boxed{{{}}} or \\boxed{{{w}}}", "Perhaps {}, perhaps {w}.",
)  # fmt: skip
BOUNDED = (
    "{}±1", "It could be {}.", "It may be {}.", "Not necessarily {}.", "{} is incorrect.",
    "{}不正确。", "Anything but {}.",
    "It is {} or more.", "不等于{}", "The answer is not {} but {w}.", "It isn't {}.",
    "{} is too small.", "答案是{}左右或{w}。",

    "The answer is at most {}.", "The answer is at least {}.", "The answer is between {} and {w}.", "答案至少是{}。",
    "答案不超过{}。",
    "The answer is more than {}.", "The answer is {} to {w}.", "It is less than {}.", "结果大于{}。",
)  # fmt: skip
EVALUATED = {"whole", "decimal", "negative", "large", "unit", "percentage"}
THOUGHTS = (
    "",
    "",
    "",
    "◁think▷First 3, then 17, no: \\boxed{{{w}}}.◁/think▷",
    "<think>maybe {w} or 6</think>\n",
    "...</think>\n\n",
)
INVISIBLE = "\u200b\u200c\u2060\ufeff\u00ad\u200e"
FULL_WIDTH = str.maketrans("0123456789", "０１２３４５６７８９")
NUMBERS = {
    "whole", "decimal", "negative", "fraction", "root", "pi", "scientific", "power", "percentage", "large", "scale",
    "unit", "duration",
    "money", "ratio", "numeral", "temperature", "angle",
}  # fmt: skip


def is_latex(text: str) -> bool:
    """True for a text that stands in dollars where it is not in a box."""
    return "\\" in text or "^{" in text


def disguised(rng: random.Random, text: str, answer: Answer) -> str:
    """`text` as some models write it: with characters that cannot be seen, or in full width."""
    chance = rng.random()
    if chance < 0.04 and text and not is_latex(text):
        at = rng.randint(0, len(text))
        return text[:at] + rng.choice(INVISIBLE) + text[at:]
    if chance < 0.08 and answer.kind in NUMBERS and text.isascii() and not is_latex(text) and "^" not in text:
        return text.translate(FULL_WIDTH)
    return text


def placed(rng: random.Random, frame: str, text: str) -> str:
    """`text` as it stands in `frame`: a formula in dollar signs, unless the frame is a box."""
    if "boxed" in frame or "$" in text + frame or "\\[" in frame:
        return text
    if is_latex(text):
        return rng.choice(["${}$", "${}$", "\\({}\\)", "$${}$$"]).format(text)
    return (
        f"${text}$" if rng.random() < 0.15 and text.strip().isascii() and not any(c.isalpha() for c in text) else text
    )


def frames_of(answer: Answer) -> list[tuple[str, ...]]:
    """The groups of frames that leave an answer of this kind the answer."""
    if answer.kind == "ocr":  # several lines may all be the text of a picture
        return [tuple(f for f in group if "\n" not in f) for group in (BARE, BOXED, ANCHORED, TRAILED)]
    groups = [BARE, BOXED, ANCHORED, TRAILED, LED, RETRACTED]
    groups.append(BLOCKS)
    if answer.kind == "letter":
        return [*groups, CHOSEN]
    if answer.kind == "count":
        return [*groups, COUNTED]
    if answer.kind == "polar":
        return [*groups, SAID]
    if answer.kind not in NUMBERS:
        return groups
    groups += [LABELLED, *([CHAINED] if answer.kind in EVALUATED else [])]
    one = tuple(f for f in VALUES if not re.search(r"\d", f))  # `numeric` reads no sentence with two numbers
    return [*groups, VALUES if answer.verifiers == ("math",) else one]


def language(text: str) -> str:
    """`zh` for Chinese characters, `en` for English words, "" for neither."""
    if re.search("[\u4e00-\u9fff]", text):
        return "zh"
    return "en" if re.search(r"[a-z]{3}", re.sub(r"\\[a-z]+|</?answer>|Answer|Final", "", text)) else ""


def fitting(rng: random.Random, frames: Sequence[str], text: str) -> str:
    """A frame in the language of `text`."""
    spoken = language(text)
    chosen = [f for f in frames if {language(f.replace("{}", "").replace("{w}", "")), spoken} != {"en", "zh"}]
    if '"' in text or "\\" in text:
        chosen = [f for f in chosen if 'answer"' not in f]
    return rng.choice(chosen or ["{}"])


def say(rng: random.Random, frame: str, text: str, other: str, answer: Answer) -> str:
    """A whole response."""
    text = disguised(rng, text, answer)
    boxed_other = other.replace("$", "")
    thought = rng.choice(THOUGHTS).format(w=boxed_other) if not frame.startswith("◁") else ""
    return thought + frame.format(
        placed(rng, frame, text), w=boxed_other if "boxed" in frame else placed(rng, frame, other)
    )

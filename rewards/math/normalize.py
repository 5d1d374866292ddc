"""One spelling for an answer: Unicode to LaTeX, decoration off, units apart. Strings in, strings out, linear time."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable

from rewards.math.spoken import chinese_number, counted_number, counted_words, english_number, ordinal, scaled

_SUPERSCRIPTS = str.maketrans(dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺ⁿ", "0123456789-+n", strict=True)))
_SUBSCRIPTS = str.maketrans(dict(zip("₀₁₂₃₄₅₆₇₈₉", "0123456789", strict=True)))
_SUBSCRIPT_RUN = re.compile("[₀-₉]+")
_SUPERSCRIPT_RUN = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺ⁿ]+")
_VULGAR = re.compile(r"(\d?)([¼½¾⅐-⅞])")
_SYMBOLS = {
    "−": "-", "–": "-", "—": "-", "﹣": "-", "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "∙": r"\cdot ",
    "÷": "/", "∕": "/", "⁄": "/", "≤": r"\le ", "≥": r"\ge ", "⩽": r"\le ", "⩾": r"\ge ", "≠": r"\ne ",
    "∪": r"\cup ", "∩": r"\cap ", "∞": r"\infty ", "π": r"\pi ", "θ": r"\theta ", "α": r"\alpha ", "β": r"\beta ",
    "λ": r"\lambda ", "°": r"^\circ ", "∈": r"\in ", "±": r"\pm ", "∓": r"\mp ", "≈": r"\approx ", "∅": r"\emptyset ",
    "，": ",", "；": ";", "：": ":", "∶": ":", "′": "'", "⟨": "(", "⟩": ")", "（": "(", "）": ")",
    "、": ",", "∨": r"\text{ or }", "¬": r"\neg ",
}  # fmt: skip
_SYMBOL = re.compile("[" + "".join(_SYMBOLS) + "]")
_ROOT = re.compile(r"√\s{0,4}(?:\(([^()√]{1,60})\)|(\d{1,20}|[a-z]))")
_CIRCLED = re.compile("[①-⑳]+")
_DOUBLED = re.compile(r"\\\\(?=[a-zA-Z])")
_DOLLAR = re.compile(r"(?<!\\)\$")
_FOR_ALL = re.compile(
    r"\\text\s*\{\s*,?\s*(?:for|with|where)\b[^{}]{0,20}\}\s*[a-z](?:\s*,\s*[a-z])*\s*\\in\s*\\mathbb\s*\{?\s*[ZNQR]\s*\}?"
    r"(?:[_^]\s*(?:\{[^{}]{0,20}\}|\S))*"
)
_ONLY = re.compile(r"^(?:\\text\s*\{\s*only\s*\}|only\s)\s*", re.IGNORECASE)
_QUANTIFIER = re.compile(
    r"(?:,|\\text\s*\{\s*,?\s*(?:for|where|with)\b[^{}]*\})[^,]*\\in\s*(?:\\mathbb\s*\{?\s*[ZNQR]\s*\}?|[ZNQR])[^,=]{0,12}$"
    r"|,?\s*\\text\s*\{\s*,?\s*(?:for|where|when)\s*\}\s*[nkm]\s*(?:\\ge|>)\s*\d{1,4}$"
    r"|,?\s*\\text\s*\{\s*,?\s*(?:for (?:all|any|some|every|each)|where)\b[^{}]*\}[^=]*$"
)
_COMMANDS = re.compile(r"\\(frac|binom|sqrt(?:\s?\[[^\[\]]{1,12}\])?)(?![a-zA-Z])")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_SPACE_RUN = re.compile(r"\s+")
_PLAIN = re.compile(r"-?[0-9]{1,12}(?:\.[0-9]{1,12})?|[A-Z]")  # the most common answers need nothing
_MAX_GROUPS = 4_000  # characters; longer text keeps the groups it has
_SPACES = "\u00a0\u2009\u202f\u2002\u2003\u3000\u2008\u200a"
_TO_SPACE = str.maketrans(dict.fromkeys(_SPACES, " "))
_OHM = re.compile(r"(?<=\d)((?:\\[,; ]|~|\s){0,3})\\(?:Omega(?![a-zA-Z])|(?:math|text)rm\s?\{\\Omega\})")
_SI = re.compile(r"\\(?:SI|qty)\s?\{([^{}]{1,40})\}\s?\{([^{}\\]{1,40})\}|\\(?:si|unit)\s?\{([^{}\\]{1,40})\}")
_LATEX_UNIT = re.compile(r"\\(?:SI|si|qty|unit|mu|Omega)(?![a-zA-Z])")
_PREFIXED_UNIT = re.compile(  # a prefix and a unit that LaTeX writes apart: \mu\mathrm{m}, \text{k}\Omega
    r"(?<=[\d}])((?:\\[,; ]|~|\s){0,3})(?:\\mu\s?\\(?:math|text)(?:rm)?\s?\{([A-Za-z]{1,3})\}"
    r"|(?:\\(?:math|text)(?:rm)?\s?\{([kMGm])\}|([kMG]))\s?\\Omega(?![A-Za-z])"
    r"|\\(?:math|text)(?:rm)?\s?\{([kMGm])\s?\\Omega\})"
)
_IN_BRACKETS = re.compile(  # (k in Z) behind an answer
    r"\s?\(\s?([a-z](?:,\s?[a-z]){0,3}\s?\\in\s?(?:\\mathbb\s?\{?[ZNQR]\}?|[ZNQR])(?:[_^]\{?[*+\d]\}?)?)\s?\)$"
)
_LATTICE = re.compile(  # {x | x = k pi, k in Z}
    r"^\\\{\s?([a-z])\s?(?:\\mid|\||:)\s?\1\s?=([^|{}]{1,200}),\s?[a-z]\s?\\in\s?\\mathbb\s?\{?[ZN]\}?\s?\\\}$"
)
_SIMPLE = (
    (re.compile(r"\\(?:text)?color\s?\{[a-z]{1,20}\}|\\(?:therefore|strut|mathstrut|hfill)(?![a-zA-Z])"), ""),
    (re.compile(r"(?<=[\d}])((?:\\[,; ]|~|\s){0,3})\\(?:math|text)rm\s?\{([A-Z])\}"), r"\1\\text{\2}"),
    (_OHM, r"\1\\text{ohm}"),
    (re.compile(r"\\\|"), "|"),
    (re.compile(r"(?<=\d),\s?\\!\s?"), ","),
    (re.compile(r"<(/?)su([pb])>"), lambda m: ("}" if m[1] else "^{" if m[2] == "p" else "_{")),
    (re.compile(r"(?<!\\)\\(?:left|right|[bB]igg?[lr]?|displaystyle|textstyle|limits|(?<!\\)!)(?![a-zA-Z])"), ""),
    (re.compile(r"\\[dtc](frac|binom)(?![a-zA-Z])"), r"\\\1"),
    (re.compile(r"^Eq\((.{1,200}),\s?([^,()]{1,80})\)$"), r"\1 = \2"),
    (re.compile(r"\\leqs?(?:lant)?(?![a-zA-Z])"), r"\\le "),
    (re.compile(r"\\geqs?(?:lant)?(?![a-zA-Z])"), r"\\ge "),
    (re.compile(r"\\neq(?![a-zA-Z])"), r"\\ne "),
    (re.compile(r"\\lor(?![a-zA-Z])|\\vee(?![a-zA-Z])"), r"\\text{ or }"),
    (re.compile(r"\\(?:math|text)(?:rm|bf|it|sf|normal)\s{0,4}\{([A-Za-z])\}"), r" \1 "),
    (re.compile(r"\\(?:(?:math|text)(?:rm|bf|it|sf|normal)|mbox|operatorname)\s{0,4}\{"), r"\\text{"),
    (re.compile(r"(?<!\\)\\(?:quad|qquad|;|:|>|enspace|,\s(?=\s))(?![a-zA-Z])"), " "),
    (re.compile(r"(?<=\d)\\,(?=\d{3}(?!\d))"), ""),
    (re.compile(r"(?<!\\)\\[,\s]"), " "),
    (re.compile(r"\\text\{\s?(sin|cos|tan|cot|sec|csc|ln|log|exp|arcsin|arccos|arctan)\s?\}"), r"\\\1 "),
    (re.compile(r"\{,\}"), ","),
    (re.compile(r"\\(?:degree|degrees)(?![a-zA-Z])"), r"^\\circ "),
    (re.compile(r"\^\s?\{\s?\\circ\s?\}"), r"^\\circ "),
    (re.compile(r"\*\*"), "^"),
    (re.compile(r"(?:\\text\s?\{\s?)?\b(?:all|any|every)(?: x)? real (?:numbers?|x)(?:\s?\})?|ℝ"), r"\\mathbb{R}"),
    (re.compile(r"^\(\s?\\text\s?\{\s?([A-Z])\s?\}\s?\)$"), r"\1"),
    (re.compile(r"\\R(?![a-zA-Z])"), r"\\mathbb{R}"),
    (re.compile(r"_\s?\{?\\text\s?\{\s?([a-z]{3,9})\s?\}\}?$"), lambda m: f"_{{{english_number(m[1]) or m[1]}}}"),
    (re.compile(r"\\langle(?![a-zA-Z])"), "("),
    (re.compile(r"\\rangle(?![a-zA-Z])"), ")"),
    (re.compile(r"(?<![\\a-zA-Z])(frac|sqrt|text)(?=\{)"), r"\\\1"),
    (re.compile(r"\\frac\{\\text\{([^{}]{1,20})\}\}\{\\text\{([^{}]{1,20})\}\}"), r"\\text{\1/\2}"),
    (re.compile(r"(?<=\d)\s*(?:\\text\s?\{\s*to\s*\}|\bto\b)\s*(?=\d)"), ":"),
    (re.compile(r"^\\text\s?\{[A-Za-z ]{2,30}[:=]\s*\}\s*"), ""),
    (re.compile(r"(?<![a-zA-Z\\])infinity(?![a-zA-Z])"), r"\\infty "),
    (re.compile(r"\.(\d{0,20})\\dot\s?\{?(\d)\}?(?:(\d{0,20})\\dot\s?\{?(\d)\}?)?"), r".\1\\overline{\2\3\4}"),
    (re.compile(r"(^|= ?)(-?\d{1,3})((?: \d{3})+)(?!\d)"), lambda m: m[1] + m[2] + m[3].replace(" ", "")),
    (re.compile(r"^(\d[\dA-F]{0,30}) ?\(?(?:\\text ?\{)? ?\(?(?:in )?base (\d{1,2})\)? ?\}?\)?$"), r"\1_{\2}"),
    (re.compile(r"(?<=%) ?(?:\\text ?\{ ?)?(?:increase|growth|rise|gain|profit|chance|probability) ?\}?$"), ""),
    (re.compile(r"^(?:(?:minus|negative) |负|零下)(?=[\d.])", re.IGNORECASE), "-"),
    (re.compile(r"(?<=[\d}]) ?[和与及] ?(?=[-\d\\])"), ", "),
    (re.compile(r"(?<=\d) ?比 ?(?=\d)"), ":"),
    (re.compile(r"^(\d{1,30})_\{?10\}?$"), r"\1"),
    (_IN_BRACKETS, r", \1"),
    (_LATTICE, r"\2"),
    (re.compile(r"(?<!\\)~"), " "),
    (re.compile(r"(^|\d\s?|[-+*/(=]\s?)(?:the )?(?:square )?root (?:of )?(\d{1,12})(?![\d.,]?\d)"), r"\1\\sqrt{\2}"),
)  # fmt: skip
_Rule = tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]]
_OF_COMMANDS = ("\\\\", r"(?<!\\)\\")  # how patterns begin that match nothing without a backslash
_OF_PLAIN_TEXT = tuple(rule for rule in _SIMPLE if not rule[0].pattern.startswith(_OF_COMMANDS))
_WRAPPED = (
    ("$$", "$$"),
    ("$", "$"),
    (r"\(", r"\)"),
    (r"\[", r"\]"),
    ("**", "**"),
    ("`", "`"),
    ("__", "__"),
    ("*", "*"),
    ('"', '"'),
    ("“", "”"),
    ("'", "'"),
)
_WRAPPING = tuple("$\\*`_\"“'")  # what a wrapped text begins with
_WRAPPING_COMMAND = re.compile(r"^\\(?:boxed|fbox|text|ensuremath|underline|mathbf|boldsymbol)\s{0,4}\{")


def to_latex(text: str) -> str:
    """`text` with Unicode operators, spaces and styles written in plain LaTeX, and its wrapping taken off."""
    if _PLAIN.fullmatch(text):
        return text
    text = _SPACE_RUN.sub(" ", text.translate(_TO_SPACE))
    if "\\begin" not in text:
        text = _DOUBLED.sub(r"\\", text)
    if not text.isascii():
        text = _SUPERSCRIPT_RUN.sub(lambda m: "^{" + m[0].translate(_SUPERSCRIPTS) + "}", text)
        text = _SUBSCRIPT_RUN.sub(lambda m: "_{" + m[0].translate(_SUBSCRIPTS) + "}", text)
        text = _VULGAR.sub(lambda m: f"{m[1]} {unicodedata.normalize('NFKC', m[2])}" if m[1] else m[2], text)
        text = _CIRCLED.sub(lambda m: ", ".join(unicodedata.normalize("NFKC", c) for c in m[0]), text)
        text = _ROOT.sub(lambda m: r"\sqrt{" + (m[1] or m[2]) + "}", text)
        text = unicodedata.normalize("NFKC", _SYMBOL.sub(lambda m: _SYMBOLS[m[0]], text))
        text = _SYMBOL.sub(lambda m: _SYMBOLS[m[0]], text)
    text = unwrap(text)
    if _LATEX_UNIT.search(text):
        text = _SI.sub(lambda m: f"{m[1] or ''}\\text{{ {m[2] or m[3]} }}", text)
        text = _PREFIXED_UNIT.sub(
            lambda m: f"{m[1]}\\text{{{'μ' + m[2] if m[2] else (m[3] or m[4] or m[5]) + 'Ω'}}}", text
        )
    text = unwrap(_simplified(text))
    if len(_DOLLAR.findall(text)) % 2 == 0:
        text = _DOLLAR.sub(" ", text)
    if len(text) <= _MAX_GROUPS:
        text = _ONLY.sub("", _QUANTIFIER.sub("", _FOR_ALL.sub("", _brace_arguments(text))))
    return " ".join(_written_out(text).split())


def _simplified(text: str) -> str:
    """`text` after all of `_SIMPLE`; most answers hold no backslash, and need few of them."""
    if "\\" not in text:
        plain_text = _replaced(text, _OF_PLAIN_TEXT)
        if "\\" not in plain_text:
            return plain_text
    return _replaced(text, _SIMPLE)


def _replaced(text: str, rules: Iterable[_Rule]) -> str:
    for pattern, replacement in rules:
        if pattern.search(text):  # quicker than `sub` where nothing is found
            text = pattern.sub(replacement, text)
    return text


def _written_out(text: str) -> str:
    """Numbers in words: `2 million`, and whole answers such as `三分之二`."""
    if not text.isascii() and len(text) <= 24:
        text = chinese_number(text.strip()) or counted_number(text.strip()) or text
    elif len(text) <= 48 and text[-1:].isalpha() and text[:1].isalpha():
        text = english_number(text) or counted_words(text) or ordinal(text) or text
    elif len(text) <= 48 and text[:1].isdigit() and text[-1:] in "dhtfrn}":
        text = ordinal(text) or (english_number(text) if " and " in text else None) or text
    return scaled(text) if len(text) <= 400 else text


def _brace_arguments(text: str) -> str:
    r"""Write `\frac12`, `\frac{1}c` and `\sqrt3` with braces around each argument. One pass over the text."""
    commands = list(_COMMANDS.finditer(text))
    if not commands:
        return text
    ends = _brace_ends(text)
    bare: list[int] = []  # where single characters stand that are arguments
    for command in commands:
        here = command.end()
        for _ in range(1 if command[1].startswith("sqrt") else 2):
            while text[here : here + 1] == " ":
                here += 1
            if here in ends:
                here = ends[here] + 1
            elif text[here : here + 1].isalnum():
                bare.append(here)
                here += 1
            else:
                break
    pieces, start = [], 0
    for at in sorted(set(bare)):
        pieces += [text[start:at], "{", text[at], "}"]
        start = at + 1
    return "".join(pieces) + text[start:]


def _brace_ends(text: str) -> dict[int, int]:
    """Index of each opening brace that is closed, and the index where it is."""
    ends: dict[int, int] = {}
    stack: list[int] = []
    for match in _BRACE.finditer(text):
        if match.group() == "{":
            stack.append(match.start())
        elif match.group() == "}" and stack:
            ends[stack.pop()] = match.start()
    return ends


def unwrap(text: str) -> str:
    """Take off whole-text wrapping, such as `$...$`, `**...**` and a box, and a final full stop."""
    before = None
    rounds = 0
    while before != text and rounds < 32:
        before, rounds = text, rounds + 1
        text = text.strip()
        if text.endswith((".", "。", ",", ";")) and text[-2:-1] != "\\":
            text = text[:-1].rstrip()
        if text.endswith("\\\\"):
            text = text[:-2].rstrip()
        if text.startswith("{") and text.endswith("}") and matching_brace(text, 0) == len(text) - 1:
            text = f"\\{{{text[1:-1]}\\}}" if "," in text else text[1:-1]
        for opening, closing in _WRAPPED if text[:1] in _WRAPPING else ():
            inner = text[len(opening) : len(text) - len(closing)]
            whole = len(text) > len(opening) + len(closing) and text.startswith(opening) and text.endswith(closing)
            if whole and opening not in inner and closing not in inner:
                text = inner
                break
        match = _WRAPPING_COMMAND.match(text) if text.endswith("}") else None
        if match is not None and matching_brace(text, match.end() - 1) == len(text) - 1:
            text = text[match.end() : -1]
    return text


def matching_brace(text: str, start: int) -> int:
    """Index of the brace that closes the one at `start`, or -1."""
    depth = 0
    for match in _BRACE.finditer(text, start):
        depth += {"{": 1, "}": -1}.get(match.group(), 0)
        if depth == 0:
            return match.start()
    return -1


def plain(text: str) -> str:
    """`text` as words to compare: no case, no punctuation at the ends, single spaces, no LaTeX text commands."""
    text = unicodedata.normalize("NFKC", text)
    text = re.sub(r"\\(?:text|textbf|textit|mathrm|mathbf|mbox|boxed)\s{0,4}\{", " ", text)
    text = re.sub(r"[${}\\]", " ", text)
    return " ".join(text.casefold().split()).strip(" .,;:!?\"'`*_()[]")

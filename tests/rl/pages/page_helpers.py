"""What the tests of the pages share: hostile text, a tokenizer of bytes, rollouts, and a reader of pages."""

import base64
import gzip
import io
import json
from html.parser import HTMLParser

import numpy as np
from PIL import Image
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from rewards.types import Score, Verdict
from rollouts.patches import Patches
from rollouts.types import Completion, Prompt, Rollout, ScoredRollout, Segment

HOSTILE = (
    "</script><script>alert(1)</script><!--<script><img src=x onerror=alert(2)>--><svg/onload=alert(3)>"
    "]]>{{ 7*7 }}{% raw %}'\"`${alert(4)}&lt;b&gt;\u2028\u2029\u202e evil \u2066\u200b\x00\x1b[31m\ufeff 𝕏 我 \ufffd"
)
STOP = "<|stop|>"


def make_tokenizer():
    """A tokenizer whose tokens are single bytes, with a think mark each and a special stop token."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: at for at, letter in enumerate(letters)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens([AddedToken("◁think▷", normalized=False), AddedToken("◁/think▷", normalized=False)])
    tokenizer.add_special_tokens([AddedToken(STOP, special=True)])
    return tokenizer


def scored_tokens(tokenizer, task, text, kind, reward, *, extracted=None, rule="", detail="", version=0):
    """A scored rollout of `text` and the stop token."""
    ids = [*tokenizer.encode(text, add_special_tokens=False).ids, tokenizer.token_to_id(STOP)]
    completion = Completion(
        token_ids=np.array(ids),
        policy_logprobs=np.linspace(-0.01, -3, len(ids), dtype=np.float32),
        sampler_logprobs=np.linspace(-0.01, -3, len(ids), dtype=np.float32),
        finish_reason="stop",
        segments=(Segment(start=0, stop=len(ids), version=version),),
    )
    prompt = Prompt(
        id=task.id,
        task=task,
        input_ids=np.array([1, 2]),
        patches=Patches(np.zeros((0, 3, 14, 14), np.float32)),
        image_grid_hws=np.zeros((0, 2), np.int64),
    )
    verdict = Verdict(kind=kind, score=reward or 0.0, extracted=extracted, rule=rule, detail=detail)
    score = Score(verdict=verdict, reward=reward, parts={} if reward is None else {"verifier": reward})
    return ScoredRollout(rollout=Rollout(prompt=prompt, index=0, completion=completion, text=text), score=score)


def png(value, size=(20, 10)):
    buffer = io.BytesIO()
    Image.new("RGB", size, (value, value, value)).save(buffer, "PNG")
    return buffer.getvalue()


class ParsedPage(HTMLParser):
    """What a browser's parser makes of a page: its elements with attributes, and the text of each script and style."""

    def __init__(self, path):
        super().__init__(convert_charrefs=True)
        self.elements, self.texts, self._inside, self.comments = [], {}, None, []
        self.feed(path.read_text(encoding="utf-8"))
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._inside = f"{tag}#{dict(attrs).get('id', '')}" if tag in ("script", "style", "title", "h1") else None

    def handle_endtag(self, tag):
        self._inside = None

    def handle_comment(self, data):
        self.comments.append(data)

    def handle_data(self, data):
        if self._inside:
            self.texts[self._inside] = self.texts.get(self._inside, "") + data

    def of(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]

    def data(self, name):
        """A packed data element, unpacked."""
        return json.loads(gzip.decompress(base64.b64decode(self.texts[f"script#{name}"])))

"""The model in use: generation with a cache, images shared among samples, gradients, refused inputs."""

import pytest
import torch
from kimi_helpers import picture

from kimi_vl import load_model


@pytest.mark.parametrize("rows", [slice(0, 2), slice(0, 1)])
def test_greedy_answers_with_and_without_a_cache_are_the_same(model, prompt, rows):
    images = 3 if rows.stop == 2 else 1
    patches = int(prompt["image_grid_hws"][:images].prod(-1).sum())
    inputs = {
        "input_ids": prompt["input_ids"][rows],
        "attention_mask": prompt["attention_mask"][rows],
        "pixel_values": prompt["pixel_values"][:patches],
        "image_grid_hws": prompt["image_grid_hws"][:images],
    }
    options = {"max_new_tokens": 24, "do_sample": False, "eos_token_id": -1}
    cached = model.generate(**inputs, use_cache=True, **options)
    assert torch.equal(cached, model.generate(**inputs, use_cache=False, **options))
    assert cached.shape[1] == inputs["input_ids"].shape[1] + 24


def test_a_left_padded_row_answers_as_it_does_alone(model, prompt):
    options = {"max_new_tokens": 16, "do_sample": False, "eos_token_id": -1}
    together = model.generate(**prompt, **options)
    mask = prompt["attention_mask"][0].bool()
    assert not mask.all()
    patches = int(prompt["image_grid_hws"][0].prod())
    alone = model.generate(
        input_ids=prompt["input_ids"][:1, mask],
        pixel_values=prompt["pixel_values"][:patches],
        image_grid_hws=prompt["image_grid_hws"][:1],
        **options,
    )
    assert torch.equal(together[0, -16:], alone[0, -16:])


def test_the_answer_depends_on_the_image(model, prompt):
    with torch.no_grad():
        seen = model(**prompt).logits[:, -1]
        other = model(**{**prompt, "pixel_values": -prompt["pixel_values"]}).logits[:, -1]
    assert (seen - other).abs().max(-1).values.min() > 0.05


def test_an_image_encoded_once_serves_many_samples(model, prompt):
    with torch.no_grad():
        features = model.encode_images(prompt["pixel_values"], prompt["image_grid_hws"])
        tokens = int((prompt["input_ids"] == model.config.image_token_id).sum())
        assert features.shape == (tokens, model.config.text_config.hidden_size)
        embeds = model.embed(prompt["input_ids"].repeat(3, 1), features.repeat(3, 1))
        shared = model(inputs_embeds=embeds, attention_mask=prompt["attention_mask"].repeat(3, 1)).logits
        alone = model(**prompt).logits
    for copy in shared.chunk(3):
        assert (copy - alone)[prompt["attention_mask"].bool()].abs().max() < 1e-5


def test_gradients_of_a_shared_image_are_those_of_separate_ones(model, prompt):
    ids, mask = prompt["input_ids"][:1], prompt["attention_mask"][:1]
    patches = int(prompt["image_grid_hws"][0].prod())
    pixels, grid = prompt["pixel_values"][:patches], prompt["image_grid_hws"][:1]
    labels = ids.masked_fill(mask == 0, -100).repeat(2, 1)
    labels[1, :-3] = -100  # the two samples ask different things of the image

    def gradients(**inputs):
        model.zero_grad()
        model(attention_mask=mask.repeat(2, 1), labels=labels, **inputs).loss.backward()
        return {
            name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None
        }

    shared = model.encode_images(pixels, grid).repeat(2, 1)
    once = gradients(inputs_embeds=model.embed(ids.repeat(2, 1), shared))
    twice = gradients(
        input_ids=ids.repeat(2, 1), pixel_values=pixels.repeat(2, 1, 1, 1), image_grid_hws=grid.repeat(2, 1)
    )
    model.zero_grad()
    assert once.keys() == twice.keys() == {name for name, _ in model.named_parameters()}
    assert once["model.vision_tower.patch_embed.proj.weight"].abs().max() > 1e-5
    for name, gradient in once.items():
        assert torch.allclose(gradient, twice[name], atol=1e-6, rtol=1e-3), name


def test_text_alone_needs_no_image(model, processor):
    inputs = processor(text=["What is 1 + 2?"], return_tensors="pt")
    with torch.no_grad():
        assert model(**inputs).logits.shape[:2] == inputs["input_ids"].shape


@pytest.mark.parametrize("keep", [0, 1, 3, torch.tensor([2, 5])])
def test_logits_to_keep(model, prompt, keep):
    with torch.no_grad():
        everything = model(**prompt).logits
        kept = model(**prompt, logits_to_keep=keep).logits
    wanted = everything[:, keep] if isinstance(keep, torch.Tensor) else everything[:, -keep:]
    assert kept.shape == wanted.shape
    assert (kept - wanted).abs().max() < 1e-5


def test_the_loss_is_the_mean_over_the_next_tokens_that_count(model, prompt):
    labels = prompt["input_ids"].masked_fill(prompt["attention_mask"] == 0, -100)
    labels[:, :20] = -100
    with torch.no_grad():
        out = model(**prompt, labels=labels)
        doubled = model(**prompt, labels=labels, num_items_in_batch=2 * (labels[:, 1:] != -100).sum())
    chosen = labels[:, 1:] != -100
    logprobs = torch.log_softmax(out.logits[:, :-1], dim=-1)
    wanted = -logprobs[chosen].gather(-1, labels[:, 1:][chosen][:, None]).mean()
    assert torch.isclose(out.loss, wanted, atol=1e-5)
    assert torch.isclose(doubled.loss, wanted / 2, atol=1e-5)


def test_router_logits_come_out_when_asked(model, prompt):
    with torch.no_grad():
        out = model(**prompt, output_router_logits=True)
    tokens = prompt["input_ids"].numel()
    assert [tuple(layer.shape) for layer in out.router_logits] == [(tokens, 6), (tokens, 6)]


def test_the_router_bias_gets_no_gradient(model):
    assert all("e_score_correction_bias" not in name for name, _ in model.named_parameters())


def test_gradient_checkpointing_changes_no_gradient(folder, prompt):
    gradients = []
    for checkpointing in (False, True):
        model = load_model(folder).train()
        if checkpointing:
            model.gradient_checkpointing_enable()
        model(**prompt, labels=prompt["input_ids"], use_cache=False).loss.backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    plain, checked = gradients
    assert all(torch.allclose(plain[name], checked[name], atol=1e-6) for name in plain)


@pytest.mark.parametrize("kernel", ["grouped_mm", "batched_mm", "eager"])
def test_experts_kernels_agree_and_can_be_changed(model, prompt, kernel):
    text = model.model.language_model
    before = text.config._experts_implementation
    with torch.no_grad():
        wanted = model(**prompt).logits
        model.set_experts_implementation(kernel)
        try:
            assert text.config._experts_implementation == kernel
            logits = model(**prompt).logits
        finally:
            model.set_experts_implementation(before)
    assert (logits - wanted)[prompt["attention_mask"].bool()].abs().max() < 1e-4


def test_what_does_not_fit_together_is_refused(model, prompt):
    pixels, grids, ids = prompt["pixel_values"], prompt["image_grid_hws"], prompt["input_ids"]
    with pytest.raises(ValueError, match=r"image placeholders in input_ids, but 8 image features"):
        model(input_ids=ids, pixel_values=pixels[:32], image_grid_hws=grids[:1])
    with pytest.raises(ValueError, match="image placeholders in input_ids, but 0 image features"):
        model(input_ids=ids)
    with pytest.raises(ValueError, match="pixel_values holds 31 patches, but image_grid_hws"):
        model(input_ids=ids, pixel_values=pixels[:31], image_grid_hws=grids[:1])
    with pytest.raises(ValueError, match="pixel_values need image_grid_hws"):
        model(input_ids=ids, pixel_values=pixels)
    with pytest.raises(ValueError, match="exactly one of input_ids and inputs_embeds"):
        model()


def test_a_position_table_is_resampled_for_every_grid(model):
    """All grids that a picture can make up to 12 patches a side go through, odd shapes too."""
    for h in (2, 6, 12):
        for w in (2, 8, 10):
            with torch.no_grad():
                features = model.encode_images(torch.zeros(h * w, 3, 14, 14), torch.tensor([[h, w]]))
            assert features.shape[0] == h * w // 4
            assert features.isfinite().all()


def test_sampling_stops_at_either_stop_token(model, processor):
    ends = {processor.tokenizer.convert_tokens_to_ids(token) for token in ("[EOS]", "<|im_end|>")}
    assert set(model.generation_config.eos_token_id) == ends
    assert model.generation_config.pad_token_id == processor.tokenizer.pad_token_id


def test_one_image_of_many_pixels(model, processor):
    inputs = processor(images=picture(900, 300), text="<|media_pad|>", return_tensors="pt")
    with torch.no_grad():
        assert model(**inputs).logits.isfinite().all()

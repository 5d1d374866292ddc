"""TRL's SFTTrainer takes the model, its processor and Pillow images as they are."""

import pytest
import torch
from kimi_helpers import picture

from kimi_vl import load_model, load_processor


def rows():
    for index in range(4):
        images = [picture(40 + 20 * (index % 3), 30, index + extra) for extra in range(1 + index % 2)]
        yield {
            "images": images,
            "prompt": [{"role": "user", "content": "What is this?"}],
            "completion": [{"role": "assistant", "content": f"It is {10**index}."}],
        }


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory):
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    model = load_model(folder)
    config = SFTConfig(
        output_dir=str(tmp_path_factory.mktemp("sft")),
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        max_steps=1,
        learning_rate=1e-3,
        lr_scheduler_type="constant",
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        max_length=None,
        dataloader_pin_memory=False,
        disable_tqdm=True,
    )
    data = Dataset.from_list(list(rows()))
    trainer = SFTTrainer(model=model, args=config, train_dataset=data, processing_class=load_processor(folder))
    batch = trainer.data_collator([trainer.train_dataset[index] for index in range(4)])
    trainer.train()
    return model, batch, trainer.state.log_history


def test_one_step_moves_every_weight(trained, model):
    before = dict(model.named_parameters())
    unmoved = [name for name, parameter in trained[0].named_parameters() if torch.equal(parameter, before[name])]
    assert unmoved == []


def test_the_loss_is_on_the_answers_only(trained, processor):
    _, batch, _ = trained
    answers = [processor.tokenizer.decode(row[row != -100]) for row in batch["labels"]]
    assert answers == [f"It is {10**index}.<|im_end|>" for index in range(4)]
    assert batch["image_grid_hws"].shape == (1 + 2 + 1 + 2, 2)


def test_the_loss_it_reports_is_the_mean_over_all_answer_tokens(trained, model):
    """One step over four rows in two micro-batches of unlike length: no row and no micro-batch counts twice."""
    _, batch, history = trained
    with torch.no_grad():
        logprobs = torch.log_softmax(model(**{k: v for k, v in batch.items() if k != "labels"}).logits[:, :-1], dim=-1)
    targets = batch["labels"][:, 1:]
    chosen = targets != -100
    wanted = -logprobs[chosen].gather(-1, targets[chosen][:, None]).mean().item()
    assert history[0]["loss"] == pytest.approx(wanted, abs=2e-3)

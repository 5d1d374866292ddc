"""What the ranks of a test do, and how they are started: one process each, joined by gloo."""

import multiprocessing
import socket
import time
import traceback
from dataclasses import replace
from multiprocessing.connection import wait
from pathlib import Path
from types import MappingProxyType, SimpleNamespace

import numpy as np
import torch
import torch.distributed as dist
from rl_helpers import barred_ids, build_model, make_prompt, make_samples, new_id
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp._fully_shard import _fsdp_collectives as collectives
from torch.optim import _muon

from configs.algorithms import LossConfig
from configs.model import LoraConfig, ModelConfig
from configs.optimizer import OptimizerConfig
from rl.checkpoint import random_state, restore_random_state
from rl.distributed.fsdp import whole, whole_tree
from rl.distributed.one_reader import open_on_rank
from rl.distributed.sharded import Sharded
from rl.learner.learner import Learner
from rl.learner.learner_config import LearnerConfig
from rl.learner.lora import prepare_training
from rl.learner.parallel import SINGLE_PROCESS, SingleProcess
from rl.learner.supervised_learner import SupervisedLearner, SupervisedLearnerConfig
from rl.safe_load import load_state
from rl.types import Sample, StepBatch

_CONTEXT = multiprocessing.get_context("forkserver")
# Imported once for all ranks of all tests.
_CONTEXT.set_forkserver_preload(["rl.distributed.sharded", "kimi_vl.tiny", "torch.distributed.checkpoint"])
_started = {}  # number of ranks -> `_Ranks` without a job


def on_ranks(world, job, *args):
    """The result of `job(mesh, *args)` on each of `world` ranks; fails with the tracebacks of those that fail."""
    ranks = _started.pop(world, None) or _Ranks(world)
    results = ranks.run(job, args)
    failed = [text for ok, text in results if not ok]
    assert not failed, "\n".join(failed)
    _started[world] = ranks  # those of a failed job may wait for each other forever, and are not used again
    return [value for _, value in results]


class _Ranks:
    """Processes that are joined once and stay for the jobs of other tests; they end with the tests."""

    def __init__(self, world):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        pipes = [_CONTEXT.Pipe() for _ in range(world)]
        self.processes = [
            _CONTEXT.Process(target=_rank, args=(pipe, rank, world, port), daemon=True)
            for rank, (_, pipe) in enumerate(pipes)
        ]
        for process in self.processes:
            process.start()
        self.pipes = [own for own, _ in pipes]

    def run(self, job, args):
        """(True, result) or (False, traceback) of each rank."""
        for pipe in self.pipes:
            pipe.send((job, args))
        late = time.monotonic() + 240
        results = {}
        try:
            while len(results) < len(self.pipes):
                ready = wait([p for p in self.pipes if p not in results], timeout=late - time.monotonic())
                assert ready, "ranks that are stuck"
                results |= {pipe: pipe.recv() for pipe in ready}
                if not all(ok for ok, _ in results.values()):
                    late = min(late, time.monotonic() + 10)
        except BaseException as error:
            results |= {pipe: (False, repr(error)) for pipe in self.pipes if pipe not in results}
        if not all(ok for ok, _ in results.values()):
            for process in self.processes:
                process.kill()
        return [results[pipe] for pipe in self.pipes]


def exact_newton_schulz(gradient, coefficients, steps, eps):
    """`torch.optim.Muon`'s iteration in fp64. In bfloat16 one rounding that falls otherwise moves a weight by 1e-3."""
    a, b, c = coefficients
    found = gradient.double()
    found = found.T if len(found) > len(found.T) else found
    found = found / found.norm().clamp(min=eps)
    for _ in range(steps):
        gram = found @ found.T
        found = a * found + (b * gram + c * gram @ gram) @ found
    return found.T if len(gradient) > len(gradient.T) else found


def _rank(pipe, rank, world, port):
    torch.set_num_threads(1)
    _muon._zeropower_via_newtonschulz = exact_newton_schulz
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world)
    mesh, random = init_device_mesh("cpu", (world,)), random_state()
    while True:
        job, args = pipe.recv()
        restore_random_state(random)
        try:
            outcome = True, job(mesh, *args)
        except Exception:
            outcome = False, f"rank {rank}: {traceback.format_exc()}"
        pipe.send(outcome)


def exact_model():
    """In fp64; grouped_mm knows no fp64."""
    model = build_model(dtype=torch.float64)
    model.set_experts_implementation("eager")
    return model


def tied_model():
    """The head is the embedding."""
    model = exact_model()
    model.lm_head.weight = model.model.language_model.embed_tokens.weight
    return model


def adapted_model():
    """Adapters on everything that can have some, none of them zero."""
    model = exact_model()
    torch.manual_seed(3)
    lora = LoraConfig(rank=2, targets=("attention", "mlp", "experts", "vision"))
    prepare_training(model, ModelConfig(lora=lora), base="made")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    return model.double()


def half_model():
    """Frozen weights in bfloat16, adapters in float32."""
    model = build_model(dtype=torch.bfloat16)
    torch.manual_seed(3)
    prepare_training(model, ModelConfig(dtype="bfloat16", lora=LoraConfig(rank=2)), base="made")
    return model


def tower_model():
    """The language model is frozen: a row without an image has nothing to learn."""
    model = exact_model()
    prepare_training(model, ModelConfig(freeze=("language_model", "lm_head")), base="made")
    return model


def checkpointed_model():
    """Activations are computed again in the backward pass."""
    model = exact_model()
    prepare_training(model, ModelConfig(gradient_checkpointing=True), base="made")
    return model


def bfloat16_model():
    """Everything in bfloat16, and trained."""
    return build_model(dtype=torch.bfloat16)


MODELS = {
    "bf16": bfloat16_model,
    "fp32": build_model,
    "fp64": exact_model,
    "tied": tied_model,
    "lora": adapted_model,
    "tower": tower_model,
    "half": half_model,
    "checkpointing": checkpointed_model,
}


def uneven(rng, model):
    """Groups of unlike size: with a budget of 40 tokens no number of ranks gets equal numbers of micro-batches."""
    return make_samples(rng, model)


def one_image(rng, model):
    """Five groups of which one has an image: with two ranks or more, some have none."""
    samples = []
    for text, grids in ((9, ((2, 4),)), (8, ()), (12, ()), (6, ()), (3, ())):
        prompt = make_prompt(rng, model, text=text, grids=grids)
        samples += [sample(rng, prompt, length) for length in (5, 2)]
    return samples


def text_only(rng, model):
    """No image at all."""
    prompts = [make_prompt(rng, model, text=text) for text in (4, 9, 6)]
    return [sample(rng, prompt, length) for prompt in prompts for length in (6, 3, 1)]


def single(rng, model):
    """One sample: all ranks but one only keep step."""
    return [sample(rng, make_prompt(rng, model, text=5, grids=((2, 2),)), 4)]


def sample(rng, prompt, length):
    """A response of made-up tokens."""
    return Sample(
        id=new_id(),
        prompt=prompt,
        token_ids=rng.integers(0, 40, length),
        old_logprobs=(-np.log(40) + 0.3 * rng.normal(size=length)).astype(np.float32),
        advantage=float(rng.normal()),
    )


def with_columns(sample, seed):
    """`sample` with made-up values and returns."""
    rng = np.random.default_rng(seed)
    return replace(sample, columns={n: rng.normal(size=len(sample.token_ids)).astype(np.float32) for n in PPO_COLUMNS})


PPO_COLUMNS = ("token_advantages", "old_values", "returns")
BATCHES = {"uneven": uneven, "one_image": one_image, "text_only": text_only, "single": single}


def config(loss=None, **options):
    """A learner's, with a budget so small that a step takes several micro-batches."""
    defaults = {
        "loss": loss or LossConfig(algorithm="grpo"),
        "optimizer": OptimizerConfig(learning_rate=1e-3, grad_clip=1e9),
        "temperature": 0.9,
        "total_steps": 10,
        "max_new_tokens": 16,
        "micro_batch_tokens": 40,
    }
    return LearnerConfig(**(defaults | options))


def make(mesh, kind, settings, *, on_skip=None, replicas=1, **options):
    """A learner on this rank; one in a single process where there is no mesh."""
    model = MODELS[kind]()
    if mesh is not None and replicas > 1:
        mesh = init_device_mesh("cpu", (replicas, mesh.size() // replicas), mesh_dim_names=("replica", "shard"))
    parallel = SINGLE_PROCESS if mesh is None else Sharded(mesh, **options)
    return Learner(model, settings, barred_ids=barred_ids(model), on_skip=on_skip, parallel=parallel)


def draw(learner, batch, seed=0):
    """A batch, the same for every rank."""
    return BATCHES[batch](np.random.default_rng(seed), learner.model)


def one_update(mesh, kind, batch, settings, options=MappingProxyType({})):
    """(gradient and weights before and after by name, metrics) of one update; whole on every rank."""
    learner = make(mesh, kind, settings, **options)
    before, seen = learner.weights(), {}

    def look(*_):
        seen.update({n: whole(p.grad).clone() for n, p in learner.model.named_parameters() if p.grad is not None})

    handle = learner.optimizer.register_step_pre_hook(look)
    # an update after the first: its denominators are those of the samples
    metrics = learner._optimizer_step(StepBatch(samples=tuple(draw(learner, batch))), number=2)
    handle.remove()
    return {n: g.numpy() for n, g in seen.items()}, before, learner.weights(), metrics


def first_gradient(mesh, kind, settings, options):
    """The gradient of one update by name, whole on every rank."""
    learner = make(mesh, kind, settings, **options)
    batch = StepBatch(samples=tuple(draw(learner, "one_image")))
    learner.accumulate(batch)
    named = [(n, p) for n, p in learner.model.named_parameters() if p.grad is not None]
    return {n: whole(p.grad).clone().float().numpy() for n, p in named}


def sum_of_many(mesh, count, threads=1):
    """The gradient of `count` examples, each a micro-batch of its own in bfloat16: as summed, and in fp64."""
    settings = SupervisedLearnerConfig(optimizer=OptimizerConfig(), total_steps=1, micro_batch_tokens=1)
    rng = np.random.default_rng(0)

    def named(learner):
        learner._gradients.finish()
        return {n: whole(p.grad).double().numpy() for n, p in learner.model.named_parameters() if p.grad is not None}

    alone = SupervisedLearner(bfloat16_model(), settings)
    examples = [sample(rng, make_prompt(rng, alone.model, text=5, grids=((2, 2),)), 4) for _ in range(count)]
    tokens, exact = sum(e.trainable_tokens for e in examples), {}
    for example in examples:
        alone._accumulate([example], tokens)
        exact = {n: gradient + exact.get(n, 0) for n, gradient in named(alone).items()}
        alone.optimizer.zero_grad()
    parallel = SingleProcess(threads) if mesh is None else Sharded(mesh)
    learner = SupervisedLearner(bfloat16_model(), settings, parallel=parallel)
    learner._accumulate(examples, tokens)
    return named(learner), exact


def two_updates(mesh, kind, settings, options):
    """Weights and metrics after an update with images and one without."""
    learner = make(mesh, kind, settings, **options)
    every = [learner.update(draw(learner, "one_image")), learner.update(draw(learner, "text_only"))]
    return learner.weights(), every


def adapters(mesh, settings):
    """The adapters before and after each of two updates, and their running mean in the reference; all whole."""
    learner = make(mesh, "half", settings)

    def look():
        return {n: whole(p.detach()).clone().numpy() for n, p in learner.model.named_parameters() if p.requires_grad}

    states = [look()]
    for batch in ("one_image", "text_only"):
        learner.update(draw(learner, batch))
        states.append(look())
    means = learner.reference.model.named_parameters()
    return states, {n: whole(p).numpy() for n, p in means if "lora_" in n}


def go_on(mesh, kind, settings, read, write, options=MappingProxyType({})):
    """Restore the checkpoint `read`, if any, update twice, and write one; (weights, metrics)."""
    learner = make(mesh, kind, settings, **options)
    if read is not None and read.suffix == ".pt":
        learner.read_checkpoint(read, load_state(read))
    elif read is not None:
        learner.read_checkpoint(read, None)
    every = [learner.update(draw(learner, batch, seed=learner.version)) for batch in ("one_image", "text_only")]
    if write is not None:
        learner.write_checkpoint(write)()
    return learner.weights(), every


def bad_step(mesh, settings):
    """An update whose gradient is not finite because of one rank's samples, and a good one after it."""
    learner = make(mesh, "fp32", settings)
    before, samples = learner.weights(), draw(learner, "uneven")
    bad = [replace(samples[0], advantage=float("nan")), *samples[1:]]
    skipped = learner.update(bad)
    after = learner.weights()
    return skipped, {n for n in before if not np.array_equal(before[n], after[n])}, learner.update(samples)


def columns_of(mesh, settings):
    """Log-probs of samples, and what reference and critic say of them, in order."""
    learner = make(mesh, "fp64", settings)
    samples = draw(learner, "uneven")
    found = {key: own for part in learner.parallel.exchange(learner.own_outputs(samples)) for key, own in part.items()}
    notes = [found[sample.id] for sample in samples]
    return learner.logprobs(samples), [(n.reference_logprobs, n.values) for n in notes]


def saved(mesh, kind, folder):
    """Write the model's folder and its adapters."""
    learner = make(mesh, kind, config())
    learner.save(folder / "model")
    learner.save_adapters(folder / "adapter")
    return learner.weights()


def held(mesh):
    """How many numbers of weights, gradients and optimizer state lie on this rank."""
    learner = make(mesh, "fp32", config())
    counts = {}

    def count(*_):
        counts["gradients"] = sum(p.grad.to_local().numel() for p in learner.model.parameters())

    learner.optimizer.register_step_pre_hook(count)
    learner.update(draw(learner, "uneven"))
    counts["weights"] = sum(p.to_local().numel() for p in learner.model.parameters())
    state = [value for values in learner.optimizer.state.values() for value in values.values() if value.ndim]
    counts["moments"] = sum(value.to_local().numel() for value in state)
    return counts


def sums_between_replicas(mesh, settings, options):
    """Numbers that each call sums between replicas in an update of PPO; and its micro-batches and parts of images."""
    learner, sums, parts = make(mesh, "fp64", settings, **options), [], []
    found, plan = vars(collectives)["dist"], learner.parallel.plan

    def all_reduce(tensor, **how):
        sums.append(tensor.numel())
        return dist.all_reduce(tensor, **how)

    def planned(*args, **how):
        rows, images = plan(*args, **how)
        parts.append((len(rows), len(images.parts)))
        return rows, images

    collectives.dist = SimpleNamespace(**(vars(found) | {"all_reduce": all_reduce}))
    learner.parallel.plan = planned
    try:
        learner.update([with_columns(s, 1) for s in draw(learner, "uneven")])
    finally:
        collectives.dist = found
    return sorted(sums), parts


def critic_updates(mesh, settings, options=MappingProxyType({})):
    """Metrics of two updates of PPO: the second sees what the critic trained in the first."""
    return _teach_critic(make(mesh, "fp64", settings, **options))


def critic_goes_on(mesh, settings, read, write):
    """Restore the checkpoint `read`, if any, update twice, and write one; the critic's (weights, counters)."""
    learner = make(mesh, "fp64", settings)
    if read is not None:
        learner.read_checkpoint(read, load_state(read) if read.suffix == ".pt" else None)
    _teach_critic(learner)
    if write is not None:
        learner.write_checkpoint(write)()
    state = whole_tree(learner.critic.state_dict())
    weights = {f"{part}.{n}": t.numpy() for part in ("head", "backbone") for n, t in state[part].items()}
    return weights, (state["iterations"], state["updates"], state["schedule"]["last_epoch"])


def from_first_rank(mesh, path, settings, model_config, replicas=1):
    """Weights before and after two updates of a learner whose first rank alone can see the model's folder."""
    if replicas > 1:
        mesh = init_device_mesh("cpu", (replicas, mesh.size() // replicas), mesh_dim_names=("replica", "shard"))
    model = open_on_rank(str(path) if dist.get_rank() == 0 else "nowhere", dtype=torch.float32)
    torch.manual_seed(dist.get_rank())  # adapters and the critic's head begin as on the first rank all the same
    prepare_training(model, model_config, base="")
    learner = Learner(model, settings, barred_ids=barred_ids(model), parallel=Sharded(mesh, one_reader=True))
    before = learner.weights()
    metrics = _teach_critic(learner)
    buffers = {n: b.double().sum().item() for n, b in learner.model.named_buffers()}
    return before, learner.weights(), metrics, buffers, learner.model.training


def most_memory(mesh, path):
    """Bytes that opening and sharding a model added on this rank at their most."""

    def resident(name):
        line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
        return int(line.split()[1]) * 1024

    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = resident("VmRSS")
    Sharded(mesh, one_reader=True).shard_model(open_on_rank(str(path), dtype=torch.float32))
    return resident("VmHWM") - before


def _teach_critic(learner):
    rng = np.random.default_rng(1)
    samples = [with_columns(s, rng) for s in draw(learner, "one_image")]
    return [learner.update(samples) for _ in range(2)]


def skipped_step(mesh, settings):
    """What a rank keeps of an update that is not finite, and the weights before it; None if it keeps nothing."""
    kept = []
    learner = make(mesh, "fp32", settings, on_skip=kept.append)
    before, samples = learner.weights(), draw(learner, "uneven")
    learner.update([replace(samples[0], advantage=float("nan")), *samples[1:]])
    if not kept:
        return None
    (skipped,) = kept
    weights = {name: tensor.numpy() for name, tensor in skipped.weights.items()}
    return before, weights, (skipped.reason, len(skipped.samples), len(samples))


def supervised_update(mesh, batch, balance_coef, kind="fp64"):
    """(weights before and after, metrics) of one supervised update of a model of `MODELS`."""
    model = MODELS[kind]()
    settings = SupervisedLearnerConfig(
        optimizer=OptimizerConfig(learning_rate=1e-3, grad_clip=1e9),
        total_steps=10,
        micro_batch_tokens=40,
        balance_coef=balance_coef,
    )
    parallel = SINGLE_PROCESS if mesh is None else Sharded(mesh)
    learner = SupervisedLearner(model, settings, parallel=parallel)
    before = learner.weights()
    metrics = learner.update(draw(learner, batch))
    return before, learner.weights(), metrics

"""The losses against torch's own, and the step against the write-up's loop."""

import itertools

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from support import tiny_run
from support.tiny_run import BATCH, LATENT, SIZE
from torch.nn.functional import binary_cross_entropy_with_logits

from benchmarks.naive import naive_discriminator, naive_generator, naive_train
from dcgan.adversarial import adversarial_step
from dcgan.data.faces import draw
from dcgan.losses import bce_fake, bce_real
from dcgan.networks import map_channels


@given(st.lists(st.floats(-1e4, 1e4), min_size=1, max_size=20))
@example([0.0])
@example([-1e4])
@example([1e4])
def test_the_losses_are_binary_cross_entropy_on_logits(values):
    logits = torch.tensor(values, dtype=torch.float64)
    for ours, label in ((bce_real, torch.ones_like), (bce_fake, torch.zeros_like)):
        expected = binary_cross_entropy_with_logits(logits, label(logits)).item()
        assert ours(logits) == pytest.approx(expected, rel=1e-12, abs=1e-12)


def test_twenty_steps_in_float64_equal_the_write_ups_loop_to_1e_9():
    players, start = tiny_run.players(), tiny_run.players()
    widths = map_channels(SIZE, 16)
    theirs = naive_generator(LATENT, widths).double(), naive_discriminator(widths).double()
    for network, naive in zip((players.generator, players.discriminator), theirs, strict=True):
        naive.load_state_dict(dict(zip(naive.state_dict(), network.state_dict().values(), strict=True)))
    reals, noises = zip(*tiny_run.inputs(20), strict=True)
    ours = [adversarial_step(players, real=r, latents=z).tolist() for r, z in zip(reals, noises, strict=True)]
    expected = naive_train(*theirs, reals, noises, lr_g=2e-4, lr_d=1e-4, decay_g=1e-6, decay_d=1e-4)
    rows = (torch.tensor(measures, dtype=torch.float64) for measures in (ours, expected))
    torch.testing.assert_close(*rows, rtol=0, atol=1e-9)
    moved = [a - b for a, b in zip(players.generator.parameters(), start.generator.parameters(), strict=True)]
    assert max(change.abs().max() for change in moved) > 1e-3, "the twenty steps changed something"
    for mine, naive in zip((players.generator, players.discriminator), theirs, strict=True):
        for ours_value, value in zip(mine.state_dict().values(), naive.state_dict().values(), strict=True):
            torch.testing.assert_close(ours_value, value, rtol=0, atol=1e-9)


def test_bf16_stays_close_to_float32_over_a_few_steps():
    runs = []
    for bf16 in (False, True):
        players, inputs = tiny_run.players(torch.float32), tiny_run.inputs(5, torch.float32)
        runs.append(torch.stack([adversarial_step(players, real=r, latents=z, bf16=bf16) for r, z in inputs]))
        assert runs[-1].dtype == torch.float32
    assert not torch.equal(*runs), "bf16 does something"
    torch.testing.assert_close(*runs, rtol=0.1, atol=0.05)


@pytest.mark.slow
@pytest.mark.thorough
def test_bf16_stays_within_the_spread_of_seeds_over_200_steps():
    """Step by step the two part, as any rounding does; what a run comes to differs no more than from seed to seed."""
    faces = torch.from_numpy(draw(range(64), SIZE)).permute(0, 3, 1, 2) / 127.5 - 1
    ends = {False: [], True: []}
    for bf16, seed in itertools.product(ends, range(4)):
        rng = torch.Generator().manual_seed(seed)
        players = tiny_run.players(torch.float32)
        batches = [faces[torch.randperm(len(faces), generator=rng)[:BATCH]] for _ in range(200)]
        latents = [torch.randn(BATCH, LATENT, generator=rng) for _ in range(200)]
        measures = [
            adversarial_step(players, real=r, latents=z, bf16=bf16) for r, z in zip(batches, latents, strict=True)
        ]
        ends[bf16].append(torch.stack(measures)[100:].mean(0))
    full, half = (torch.stack(ends[bf16]) for bf16 in (False, True))
    spread = full.std(0)
    assert not torch.equal(full, half)
    assert ((half.mean(0) - full.mean(0)).abs() <= spread).all(), (half.mean(0), full.mean(0), spread)


def test_the_discriminator_gets_no_gradient_from_the_generators_loss_and_is_thawed_after():
    players = tiny_run.players()
    ((real, latents),) = tiny_run.inputs(1)
    before = {}

    def note_gradients(*_):
        before.update({name: p.grad.clone() for name, p in players.discriminator.named_parameters()})

    players.discriminator_optimizer.register_step_post_hook(note_gradients)
    adversarial_step(players, real=real, latents=latents)
    for name, parameter in players.discriminator.named_parameters():
        assert parameter.requires_grad
        assert torch.equal(parameter.grad, before[name])

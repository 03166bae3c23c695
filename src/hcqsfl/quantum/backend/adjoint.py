"""The fused operations' own backward pass: one sweep back through the levels.

The adjoint state is carried back by the transposed matrices. The slope of an RY angle is an overlap of the adjoint
state with the state, through -iY of its qubit; those of all qubits of a half are sums over one small overlap matrix,
so nothing is differentiated through the Kronecker products. The slope of a phase is a signed sum over the imaginary
parts of the same overlap, basis state by basis state. Only each level's state after its phases is kept.
"""

from typing import Any

import torch
from torch import Tensor

from hcqsfl.quantum.backend.plan import Plan, Tables, phase, rotate, rotate_samples, samples_first, samples_last


class Adjoint(torch.autograd.Function):
    """Expectation values from the factors of the first state, the sampled and the shared angles."""

    @staticmethod
    def forward(ctx: Any, plan: Plan, left: Tensor, right: Tensor, sampled: Tensor, shared: Tensor) -> Tensor:
        """Run the levels, and keep each one's state after its phases."""
        t, per_sample = plan.tables(shared), sampled.t()
        upper, lower_half = plan.matrices(t, shared)
        diagonals = plan.diagonals(t, shared)
        state = (left[:, None] * right[None]).flatten(0, 1).contiguous()
        kept: list[Tensor] = []
        sampled_phases: list[Tensor | None] = []
        sampled_matrices: list[tuple[Tensor, Tensor] | None] = []
        for number, level in enumerate(t.levels):
            if level.permutes:
                state = state.index_select(0, level.source)
            if level.diagonal is not None:
                state = state * diagonals[level.diagonal]
            sampled_phases.append(None if level.sampled is None else phase(level.sampled @ per_sample))
            if (turned := sampled_phases[-1]) is not None:
                state = state * turned
            kept.append(state)
            if level.rotates:
                state = rotate(state, upper[number], lower_half[number])
            turns = level.sampled_turns
            sampled_matrices.append(None if turns is None else plan.sampled_matrices(turns @ per_sample))
            if (matrices := sampled_matrices[-1]) is not None:
                state = samples_last(rotate_samples(samples_first(state, plan.half), *matrices))
        ctx.plan, ctx.parts = plan, (kept, state, upper, lower_half, diagonals, sampled_phases, sampled_matrices)
        ctx.save_for_backward(left, right, sampled, shared)
        return plan.measure(state)

    @staticmethod
    def backward(ctx: Any, slopes: Tensor) -> tuple[Tensor | None, ...]:
        """Sweep back; where the gradient is itself to be differentiated, leave a graph of plain operations."""
        plan: Plan = ctx.plan
        left, right, sampled, shared = ctx.saved_tensors
        if torch.is_grad_enabled():
            # aliases: the first state comes from the same angles, whose slopes would otherwise count it twice
            aliases = [tensor.view_as(tensor) for tensor in ctx.saved_tensors]
            leaves = [tensor for tensor in aliases if tensor.requires_grad]
            values = plan.measure(plan.evolve(*aliases))
            found = iter(torch.autograd.grad(values, leaves, slopes, create_graph=True, allow_unused=True))
            return None, *(next(found) if tensor.requires_grad else None for tensor in aliases)
        kept, state, upper, lower_half, diagonals, sampled_phases, sampled_matrices = ctx.parts
        t = plan.tables(shared)
        n, (d1, d2) = plan.circuit.n_qubits, (upper.shape[-1], lower_half.shape[-1])
        bra = adjoint_of_measuring(t, state, slopes)
        turns = shared.new_zeros(len(t.levels), n)
        phases = shared.new_empty(len(diagonals), len(state), 1)
        d_sampled = torch.zeros_like(sampled.t())
        for number in range(len(t.levels) - 1, -1, -1):
            level, ket = t.levels[number], kept[number]
            if level.rotates:
                bra = rotate(bra, upper[number].t(), lower_half[number].t())
            if level.sampled_turns is not None:
                first, second = (matrix.transpose(1, 2) for matrix in sampled_matrices[number])
                planes = rotate_samples(samples_first(bra, plan.half), first, second)
                own = overlaps(t, planes, samples_first(ket, plan.half))
                turns[number] = own.sum(0)
                d_sampled.addmm_(level.sampled_turns.t(), own.t())
                bra = samples_last(planes)
            elif level.rotates:
                a, b = torch.view_as_real(bra).view(d1, -1), torch.view_as_real(ket).view(d1, -1)
                turns[number, : plan.half] = torch.mm(a, b.t()).view(-1) @ t.upper
                a, b = a.view(d1, d2, -1), b.view(d1, d2, -1)
                turns[number, plan.half :] = torch.bmm(a, b.transpose(1, 2)).sum(0).view(-1) @ t.lower
            if level.diagonal is not None or level.sampled is not None:
                a, b = torch.view_as_real(bra), torch.view_as_real(ket)
                # Im(conj(bra) ket), twice with a minus: the slope along an angle that multiplies by exp(i angle)
                slope = (a[..., 1] * b[..., 0]).addcmul_(a[..., 0], b[..., 1], value=-1)
                if level.diagonal is not None:
                    torch.sum(slope, 1, keepdim=True, out=phases[level.diagonal])
                    bra = bra * diagonals[level.diagonal].conj()
                if level.sampled is not None:
                    d_sampled.addmm_(level.sampled.t(), slope)
                    bra = bra * sampled_phases[number].conj()
            if level.permutes:
                bra = bra.index_select(0, level.target)
        d_shared = turns.view(-1) @ t.turns
        if len(phases):
            by_slot = torch.bmm(t.phase_signs.transpose(1, 2), phases)
            d_shared.index_add_(0, t.phase_slots.view(-1), by_slot.view(-1))
        bra = bra.view(len(left), len(right), -1)
        d_left, d_right = (bra * right.conj()[None]).sum(1), (bra * left.conj()[:, None]).sum(0)
        return None, d_left, d_right, d_sampled.t(), d_shared


def adjoint_of_measuring(t: Tables, state: Tensor, slopes: Tensor) -> Tensor:
    """Return ``2 sum_o slopes_o P_o state``."""
    if t.diagonal:
        weights = torch.mm(t.signs.t(), slopes.t()).mul_(2)
        return torch.view_as_complex(torch.view_as_real(state) * weights.unsqueeze(2))
    bra = torch.zeros_like(state)
    for column, (place, factor) in enumerate(t.words):
        bra += 2 * slopes[:, column] * factor * state.index_select(0, place)
    return bra


def overlaps(t: Tables, bra: Tensor, ket: Tensor) -> Tensor:
    """Return each sample's slopes ``(b, n)`` along its RY angles, from planes ``(b, d1, d2, 2)``."""
    b, d1, d2, _ = bra.shape
    upper = torch.bmm(bra.view(b, d1, -1), ket.view(b, d1, -1).transpose(1, 2))
    a, c = (planes.transpose(1, 2).reshape(b, d2, -1) for planes in (bra, ket))
    lower_half = torch.bmm(a, c.transpose(1, 2))
    return torch.cat([upper.view(b, -1) @ t.upper, lower_half.view(b, -1) @ t.lower], 1)

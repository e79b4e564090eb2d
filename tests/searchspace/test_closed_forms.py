"""The closed forms of the papers, each named, as costs of real fragments over a range of widths, kernels and sizes.

M channels read, N made, K the kernel, X x Y (x T) the positions of the map made, G groups; strides 1, padding "same".
"""

from fractions import Fraction
from math import comb, prod

import pytest
from hypothesis import given
from hypothesis import strategies as st

from searchspace.architecture import Architecture, Chain, Conv, Depthwise, Node, Shape
from searchspace.blocks import (
    bottleneck,
    depthwise_separable,
    grid_reduction,
    middle_width,
    plain,
    residual,
    shuffle_unit,
)
from searchspace.cost import Cost, cost
from searchspace.published import NETWORKS
from searchspace.transforms import everywhere, factorize, octave, resize, role, separate, widen

widths = st.integers(1, 40)
odd = st.sampled_from((1, 3, 5, 7))
spaces = st.lists(st.integers(1, 20), min_size=2, max_size=3).map(tuple)
even_spaces = st.lists(st.integers(1, 8).map(lambda n: 2 * n), min_size=2, max_size=3).map(tuple)
eighths = st.sampled_from([Fraction(a, 8) for a in (0, 1, 2, 4, 6, 7, 8)])


def of(into: Shape | tuple[int, ...], *nodes: Node) -> Cost:
    size = (into.channels, *into.space) if isinstance(into, Shape) else into
    return cost(Architecture(size, Chain(nodes)))


def of_last(size: tuple[int, ...], *nodes: Node) -> tuple[int, int, int]:
    """(macs, params, activations) of the last node, which reads what the others make."""
    a, b = of(size, *nodes), of(size, *nodes[:-1])
    return a.macs - b.macs, a.params - b.params, a.activations - b.activations


# Convolutions ---------------------------------------------------------------------------------------------------


@given(widths, widths, odd, spaces)
def test_a_standard_convolution_has_n_mk2_plus_1_params_and_mxyk2n_macs(M, N, K, space):
    c = of((M, *space), Conv(N, K, bias=True))
    k = K ** len(space)
    assert (c.params, c.macs) == (N * (M * k + 1), M * prod(space) * k * N)


@given(widths, widths, spaces)
def test_a_pointwise_convolution_has_n_m_plus_1_params_and_mxyn_macs(M, N, space):
    c = of((M, *space), Conv(N, bias=True))
    assert (c.params, c.macs) == (N * (M + 1), M * prod(space) * N)


@given(widths, widths, odd, spaces, st.integers(1, 6))
def test_a_grouped_convolution_divides_weights_and_macs_by_the_groups(m, n, K, space, G):
    M, N, k = m * G, n * G, K ** len(space)
    c = of((M, *space), Conv(N, K, groups=G, bias=True))
    assert (c.params, c.macs) == (N * (M * k // G + 1), M * prod(space) * k * N // G)


@given(widths, odd, spaces)
def test_a_depthwise_convolution_has_m_k2_plus_1_params_and_mxyk2_macs(M, K, space):
    k = K ** len(space)
    alone, grouped = of((M, *space), Depthwise(K, bias=True)), of((M, *space), Conv(M, K, groups=M, bias=True))
    assert (alone.params, alone.macs) == (M * (k + 1), M * prod(space) * k) == (grouped.params, grouped.macs)


@given(widths, widths, odd, spaces)
def test_a_separable_convolution_has_mk2_nm_m_n_params_and_mxy_k2_plus_n_macs(M, N, K, space):
    into, k = Shape(M, space), K ** len(space)
    c = of(into, depthwise_separable(into, out=N, kernel=K, bias=True))
    assert (c.params_without_bn, c.macs) == (M * k + N * M + M + N, M * prod(space) * (k + N))
    dense = of(into, plain(into, out=N, kernel=K))
    assert Fraction(c.macs, dense.macs) == Fraction(1, N) + Fraction(1, k)


@given(widths, widths, st.sampled_from((3, 5, 7)), st.integers(2, 5), st.integers(15, 40))
def test_a_dilated_convolution_costs_as_a_standard_one_and_reaches_d_k_minus_1_plus_1(M, N, K, d, size):
    wide, dense = (of((M, size, size), Conv(N, K, dilation=dilation)) for dilation in (d, 1))
    assert (wide.params, wide.macs) == (dense.params, dense.macs)
    assert wide.receptive_field == (d * (K - 1) + 1,) * 2


@pytest.mark.parametrize("layers", range(1, 6))
def test_dilations_1_2_4_reach_2_to_the_layers_plus_1_minus_1(layers):
    stack = (Conv(1, 3, dilation=2**i) for i in range(layers))
    assert of((1, 64, 64), *stack).receptive_field == (2 ** (layers + 1) - 1,) * 2


# Smaller kernels ------------------------------------------------------------------------------------------------


def ratio(kind: str, C: int, K: int, space: tuple[int, ...]) -> Fraction:
    """Multiply-adds of a factorized K x K convolution of C channels, of the dense one's."""
    size = (C, *space)
    dense = Architecture(size, Chain((Conv(C, (1,) * (len(space) - 2) + (K, K)),)))
    pieces = factorize(dense, kind, everywhere)
    assert cost(pieces).receptive_field == cost(dense).receptive_field
    assert Fraction(cost(pieces).params, cost(dense).params) == Fraction(cost(pieces).macs, cost(dense).macs)
    return Fraction(cost(pieces).macs, cost(dense).macs)


@given(widths, spaces)
def test_a_5x5_as_two_3x3_saves_28_percent(C, space):
    assert 1 - ratio("stacked", C, 5, space) == Fraction(28, 100)


@given(widths, spaces)
def test_a_7x7_as_three_3x3_is_27_of_49(C, space):
    assert ratio("stacked", C, 7, space) == Fraction(27, 49)


@given(widths, spaces)
@pytest.mark.parametrize("n", [3, 5, 7])
def test_an_nxn_as_1xn_and_nx1_saves_1_minus_2_over_n(n, C, space):
    assert 1 - ratio("asymmetric", C, n, space) == 1 - Fraction(2, n)


@given(st.integers(1, 10), st.sampled_from((2, 4, 8, 16)))
def test_a_grid_reduction_costs_2d2k2_or_a_quarter_or_an_eighth(k, d):
    """Szegedy et al. 2015, section 5: d x d x k to d/2 x d/2 x 2k; a 3 x 3 convolution multiplies all by 9."""
    into = Shape(k, (d, d))
    forms = {
        form: of(into, grid_reduction(into, out=2 * k, reduction=form))
        for form in ("conv_pool", "pool_conv", "parallel")
    }
    assert forms["conv_pool"].macs == 2 * d**2 * k**2 * 9
    assert forms["pool_conv"].macs == 2 * (d // 2) ** 2 * k**2 * 9
    assert forms["parallel"].macs == (d // 2) ** 2 * k**2 * 9


# Octave ---------------------------------------------------------------------------------------------------------


@given(eighths, eighths, st.integers(1, 4), st.integers(1, 4), odd, even_spaces, st.sampled_from((1, 2)))
def test_an_octave_convolution_costs_1_minus_three_quarters_of_1_minus_1_minus_a_times_1_minus_b(
    a, b, m, n, K, space, G
):
    M, N = 16 * m, 16 * n
    dense = of_last((1, *space), Conv(M), Conv(N, K, groups=G))
    macs, params, activations = of_last((1, *space), Conv(M, low=int(a * M)), Conv(N, K, groups=G, low=int(b * N)))
    assert macs == dense[0] * (1 - Fraction(3, 4) * (1 - (1 - a) * (1 - b)))
    assert params == dense[1]
    assert activations == dense[2] * (1 - Fraction(3, 4) * b)


@pytest.mark.parametrize(
    ("alpha", "flops", "memory"),
    [(0.125, 82, 90.625), (0.25, 67, 81.25), (0.5, 44, 62.5), (0.75, 30, 43.75), (0.875, 26, 34.375), (1.0, 25, 25)],
)
def test_the_octave_papers_table_1(alpha, flops, memory):
    """Chen et al. 2019, table 1, which prints 35 % where the memory at 0.875 is 34.375 %."""
    stack = Architecture((64, 28, 28), Chain(tuple(Conv(64, 3) for _ in range(3))))
    lower = octave(stack, alpha, lambda site: site.index != (2,))
    first, middle, last = (
        Fraction(of_last((64, 28, 28), *lower.body.items[: i + 1])[0], 64 * 64 * 9 * 28 * 28) for i in range(3)
    )
    a = Fraction(alpha)
    assert middle == 1 - Fraction(3, 4) * a * (2 - a)
    assert round(100 * middle) == flops
    assert first == last == 1 - Fraction(3, 4) * a
    assert 100 * Fraction(of_last((64, 28, 28), *lower.body.items[:2])[2], 64 * 28 * 28) == memory


@given(eighths, st.integers(1, 4), odd, even_spaces)
def test_an_octave_depthwise_convolution_and_its_memory_cost_1_minus_three_quarters_of_alpha(a, m, K, space):
    M = 8 * m
    dense = of_last((1, *space), Conv(M), Depthwise(K))
    macs, params, activations = of_last((1, *space), Conv(M, low=int(a * M)), Depthwise(K))
    share = 1 - Fraction(3, 4) * a
    assert (macs, params, activations) == (dense[0] * share, dense[1], dense[2] * share)


# Units ----------------------------------------------------------------------------------------------------------


@given(st.integers(1, 30), st.integers(1, 8), st.integers(1, 8), spaces)
def test_a_shuffle_unit_costs_hw_2cm_over_g_plus_9m(m, g, four, space):
    m, space = m * g, space[:2]
    c = 4 * m
    into = Shape(c, space)
    unit = of(into, shuffle_unit(into, out=c, groups=g, shuffle=g > 1))
    assert unit.macs == prod(space) * (2 * c * m // g + 9 * m)


def test_the_shuffle_unit_of_240_channels_costs_7_949_760():
    into = Shape(240, (28, 28))
    assert of(into, shuffle_unit(into, out=240, groups=3)).macs == 7_949_760


@given(st.integers(1, 16), spaces)
def test_a_resnet_unit_costs_hw_2cm_plus_9m2(m, space):
    space = space[:2]
    into = Shape(4 * m, space)
    assert of(into, bottleneck(into, out=4 * m)).macs == prod(space) * (2 * 4 * m * m + 9 * m**2)
    assert of(into, residual(into, out=4 * m)).macs == prod(space) * 2 * 9 * (4 * m) ** 2


@given(st.integers(1, 16), st.integers(1, 8), spaces)
def test_a_resnext_unit_costs_hw_2cm_plus_9m2_over_g(m, g, space):
    m, space = m * g, space[:2]
    into = Shape(2 * m, space)
    unit = of(into, bottleneck(into, out=2 * m, expansion=2, groups=g))
    assert unit.macs == prod(space) * (2 * 2 * m * m + 9 * m**2 // g)


# Video ----------------------------------------------------------------------------------------------------------


@given(widths, widths, st.sampled_from((3, 5)), st.tuples(*[st.integers(1, 8)] * 3))
def test_a_channel_separated_3d_convolution_costs_1_over_n_plus_1_over_k3(M, N, K, space):
    into = Shape(M, space)
    separable = of(into, depthwise_separable(into, out=N, kernel=K))
    dense = of(into, plain(into, out=N, kernel=K))
    assert Fraction(separable.macs, dense.macs) == Fraction(1, N) + Fraction(1, K**3)
    assert separable.params_without_bn == M * (K**3 + N)


@given(st.integers(1, 96), st.integers(1, 96), st.sampled_from((1, 3, 5)), st.sampled_from((3, 5, 7)))
def test_r2plus1d_has_the_middle_width_that_keeps_the_params(n_in, n_out, t, d):
    """Tran et al. 2018, section 3.5: M = floor(t d^2 N_in N_out / (d^2 N_in + t N_out))."""
    M = t * d**2 * n_in * n_out // (d**2 * n_in + t * n_out)
    assert middle_width(n_in, n_out, (t, d, d)) == max(1, M)
    dense = Architecture((n_in, 4, 8, 8), Chain((Conv(n_out, (t, d, d)),)))
    if t > 1:
        pair = factorize(dense, "r2plus1d", everywhere)
        widths = [site.leaf.out for site in pair.sites if isinstance(site.leaf, Conv)]
        assert widths == [max(1, M), n_out]
        lost = cost(dense).params - cost(pair).params
        assert 0 <= lost < d**2 * n_in + t * n_out or M == 0


@pytest.mark.parametrize(("groups", "pairs"), [(1, 15), (2, 3), (6, 0)])
def test_a_filter_over_6_channels_joins_15_pairs_or_3_or_none(groups, pairs):
    """Tran et al. 2019, figure 1."""
    assert of((6, 2, 4, 4), Conv(6, 3, groups=groups)).interactions == 6 * pairs


@given(widths, widths, st.integers(1, 6), spaces)
def test_interactions_are_n_times_the_binomial_of_m_over_g_and_2(m, n, G, space):
    M, N = m * G, n * G
    assert of((M, *space), Conv(N, 3, groups=G)).interactions == N * comb(M // G, 2)


@given(widths, widths, spaces)
def test_separation_preserves_the_interactions_or_drops_those_of_the_kernel(M, N, space):
    dense = Architecture((M, *space), Chain((Conv(M, label="reduce"), Conv(N, 3, label="spatial"))))
    preserved = cost(separate(dense, "preserved", role("spatial")))
    reduced = cost(separate(dense, "reduced", role("spatial")))
    assert preserved.interactions == cost(dense).interactions == (M + N) * comb(M, 2)
    assert reduced.interactions == (M if M == N else M + N) * comb(M, 2)


# Multipliers ----------------------------------------------------------------------------------------------------


@given(widths, widths, odd, spaces, st.integers(2, 5))
def test_the_width_multiplier_is_squared_between_convolutions(M, N, K, space, alpha):
    stack = Architecture((1, *space), Chain((Conv(M), Conv(N, K), Conv(1))))
    wider = widen(stack, alpha, everywhere)
    between, wide = (of_last((1, *space), *a.body.items[:2]) for a in (stack, wider))
    assert (wide[0], wide[1]) == (alpha**2 * between[0], alpha**2 * between[1])


@given(widths, widths, odd, spaces, st.integers(2, 4))
def test_the_resolution_multiplier_is_squared_and_params_stay(M, N, K, space, rho):
    small = Architecture((M, *space), Chain((Conv(N, K),)))
    large = resize(small, (*space[:-2], space[-2] * rho, space[-1] * rho))
    assert (cost(large).macs, cost(large).params) == (rho**2 * cost(small).macs, cost(small).params)


@pytest.mark.parametrize("alpha", [0.25, 0.5, 0.75])
def test_mobilenets_width_multiplier_is_alpha_squared_but_for_its_stem_and_depthwise_part(alpha):
    """Howard et al. 2017, section 3.3: "roughly alpha^2"; exactly, what alpha does not square is linear in it."""

    def parts(a: Architecture) -> tuple[int, int]:
        point = [s for s in a.sites if isinstance(s.leaf, Conv) and s.before.channels > 3]
        squared = sum(s.before.channels * s.after.elements for s in point)
        return cost(a).macs_without_classifier - squared, squared

    full, thin = (parts(NETWORKS["mobilenet_v1"](width=w)) for w in (1.0, alpha))
    assert thin == (alpha * full[0], alpha**2 * full[1])
    assert alpha**2 < sum(thin) / sum(full) < alpha**2 + 0.06


@pytest.mark.parametrize("size", [128, 160, 192, 256, 448])
def test_mobilenets_resolution_multiplier_is_rho_squared_but_for_its_classifier(size):
    base, other = (cost(NETWORKS["mobilenet_v1"](input=(3, n, n))) for n in (224, size))
    assert other.macs_without_classifier == base.macs_without_classifier * Fraction(size, 224) ** 2
    assert other.params == base.params

"""MaskPlan: validation, errors, hash, JSON and text code."""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import pickle
import random
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mlae_lab.core.patterns import allocation, dense, paper_patterns, uniform
from mlae_lab.core.plan import MAX_COLUMNS, MAX_ROWS, Kind, MaskPlan, PlanError, block_targets

ODD_TARGETS = (
    "head",
    "a_b.c_d",
    "blocks.3.attn.qkv",
    "blocks.10.attn.qkv",
    "layer_1.0",
    "frozen",
    "r2",
    "n.t",
    "x__y_",
)


def random_plan(draw: random.Random) -> MaskPlan:
    """Any legal plan: dense or sparse, with rates per row, per cell or none, unusual names, ranks and initial λ."""
    rows, columns = draw.randint(1, 13), draw.randint(1, MAX_COLUMNS)
    share = draw.choice((0.0, 0.3, 0.9, 1.0))
    keep = tuple(tuple(draw.random() < share for _ in range(columns)) for _ in range(rows))
    way = draw.choice(("none", "all", "row", "cell"))
    shared, per_row = round(draw.random() * 0.99, 2), [round(draw.random() * 0.999, 4) for _ in range(rows)]
    rates = tuple(
        tuple(
            {"none": 0.0, "all": shared, "row": per_row[r], "cell": draw.random() * 0.9999}[way] for _ in range(columns)
        )
        for r in range(rows)
    )
    targets = draw.choice(
        (block_targets(rows), block_targets(rows, "mlp.fc1"), block_targets(rows, "my_attn.q_k_v"), tuple(
            draw.sample([*ODD_TARGETS, *block_targets(rows, "attn.proj")], rows)
        ))
    )  # fmt: skip
    return MaskPlan(
        keep, rates, targets,
        expert_rank=draw.choice((1, 1, 2, 4, 256)),
        coefficient_init=draw.choice((1.0, 0.125, -4.0, 1000, 1e-3, 1 / 3, -1.2345678901234567e-3)),
        train_coefficients=draw.random() < 0.7,
    )  # fmt: skip


PLANS = [random_plan(random.Random(seed)) for seed in range(300)] + [entry.plan for entry in paper_patterns()]


# ---------------------------------------------------------------- round trips


def test_json_gives_the_same_plan_back() -> None:
    for plan in PLANS:
        back = MaskPlan.from_json(plan.to_json())
        assert back == plan
        assert back.hash == plan.hash
        assert hash(back) == hash(plan)


def test_to_dict_holds_plain_data_only() -> None:
    plan = PLANS[0]
    data = plan.to_dict()
    assert json.loads(json.dumps(data)) == data
    assert {cell for row in data["keep"] for cell in row} <= {0, 1}


def test_code_gives_the_same_plan_back() -> None:
    for plan in PLANS:
        back = MaskPlan.from_code(plan.code)
        assert back == plan, plan.code
        assert back.hash == plan.hash
        assert back.code == plan.code


def test_code_is_one_word_that_a_link_can_carry() -> None:
    for plan in PLANS:
        assert re.fullmatch(r"[A-Za-z0-9_.,*~-]+", plan.code)


def test_code_of_the_papers_own_mask() -> None:
    assert uniform(0.5).code == "m1_12x8_ff*12_.5*12"
    assert MaskPlan.from_code("m1_12x8_ff*12_.5*12") == uniform(0.5)


def test_code_holds_only_values_that_differ_from_the_default() -> None:
    plan = dataclasses.replace(
        uniform(0.5, layers=2, experts=2), expert_rank=2, coefficient_init=0.25, train_coefficients=False,
        targets=block_targets(2, "mlp.fc1"),
    )  # fmt: skip
    assert plan.code == "m1_2x2_3*2_.5*2_r2_c0.25_frozen_tmlp.fc1"


def test_code_holds_a_rate_for_each_cell_where_they_differ() -> None:
    plan = MaskPlan(((True, False, True),), ((0.25, 0.9, 0.5),), ("blocks.0.attn.qkv",))
    assert plan.code == "m1_1x3_5_.25,.5"
    assert MaskPlan.from_code(plan.code).drop_rate == ((0.25, 0.0, 0.5),)


def test_copy_and_pickle_keep_the_plan() -> None:
    for plan in PLANS[:20]:
        assert plan.hash == copy.deepcopy(plan).hash == pickle.loads(pickle.dumps(plan)).hash


# ---------------------------------------------------------------- hash


def test_hash_does_not_change_from_machine_to_machine() -> None:
    """Fixed values: stored plans of earlier versions must keep their hashes."""
    assert uniform(0.5).hash == "b5e6c5ea267f"
    assert dense().hash == "4417f6790093"


@pytest.mark.parametrize("hash_seed", ["1", "4242"])
def test_hash_is_the_same_in_a_fresh_interpreter(root: Path, hash_seed: str) -> None:
    script = (
        "import sys\nfrom mlae_lab.core.plan import MaskPlan\n"
        "for line in sys.stdin: print(MaskPlan.from_code(line).hash)\n"
    )
    completed = subprocess.run(
        [sys.executable, "-c", script],
        input="\n".join(plan.code for plan in PLANS),
        env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(root)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert completed.stdout.split() == [plan.hash for plan in PLANS]


def test_hash_depends_on_every_value() -> None:
    base = MaskPlan(((True, True), (True, False)), ((0.1, 0.2), (0.3, 0.0)), block_targets(2))
    variants = [
        dataclasses.replace(base, expert_rank=2),
        dataclasses.replace(base, coefficient_init=1.0000001),
        dataclasses.replace(base, train_coefficients=False),
        dataclasses.replace(base, targets=base.targets[::-1]),
        dataclasses.replace(base, targets=block_targets(2, "attn.proj")),
        MaskPlan((*base.keep, (False, False)), (*base.drop_rate, (0.0, 0.0)), block_targets(3)),
        MaskPlan(tuple((*row, False) for row in base.keep), tuple((*row, 0.0) for row in base.drop_rate), base.targets),
    ]
    for row in range(2):
        for column in range(2):
            keep = [list(cells) for cells in base.keep]
            keep[row][column] = not keep[row][column]
            variants.append(dataclasses.replace(base, keep=keep))
            if base.keep[row][column]:
                rates = [list(cells) for cells in base.drop_rate]
                rates[row][column] += 0.0001
                variants.append(dataclasses.replace(base, drop_rate=rates))
    hashes = {plan.hash for plan in (base, *variants)}
    assert len(hashes) == 1 + len(variants)


def test_a_rate_where_no_expert_exists_is_ignored() -> None:
    a = MaskPlan(((True, False),), ((0.5, 0.9),), ("head",))
    b = MaskPlan(((True, False),), ((0.5, 0.1),), ("head",))
    assert a == b
    assert a.hash == b.hash
    assert a.code == b.code
    assert a.drop_rate == ((0.5, 0.0),)


def test_equal_numbers_of_different_types_give_equal_plans() -> None:
    a = MaskPlan(((1, 1),), ((0, -0.0),), ("head",), coefficient_init=2)
    b = MaskPlan([[True, True]], [[0.0, 0.00001]], ["head"], coefficient_init=2.0)
    assert a == b
    assert a.hash == b.hash
    assert a.code == b.code
    assert a.to_json() == b.to_json()


# ---------------------------------------------------------------- properties


@pytest.mark.parametrize(
    ("keep", "rates", "kind"),
    [
        (((1, 1), (1, 1)), ((0, 0), (0, 0)), Kind.DENSE),
        (((1, 1), (1, 0)), ((0, 0), (0, 0)), Kind.FIXED),
        (((1, 1), (1, 1)), ((0, 0), (0, 0.1)), Kind.STOCHASTIC),
        (((1, 1), (1, 0)), ((0, 0.1), (0, 0)), Kind.MIXED),
        (((1, 1), (1, 0)), ((0, 0), (0, 0.9)), Kind.FIXED),  # the only rate is where no expert exists
        (((0, 0), (0, 0)), ((0, 0), (0, 0)), Kind.FIXED),
    ],
)
def test_kind(keep: tuple, rates: tuple, kind: Kind) -> None:
    assert MaskPlan(keep, rates, block_targets(2)).kind is kind


def test_an_empty_row_is_legal() -> None:
    plan = MaskPlan(((False, False), (True, True)), ((0.5, 0.5), (0.5, 0.5)), block_targets(2))
    assert plan.kept == (0, 2)
    assert plan.experts == 2
    assert plan.row_rates() == (0.0, 0.5)
    assert MaskPlan.from_code(plan.code) == plan == MaskPlan.from_json(plan.to_json())


def test_row_rates_is_none_where_cells_of_a_row_differ() -> None:
    plan = MaskPlan(((1, 1, 0), (1, 1, 1)), ((0.5, 0.5, 0.1), (0.5, 0.5, 0.1)), block_targets(2))
    assert plan.row_rates() == (0.5, None)


def test_size() -> None:
    plan = allocation((3, 0, 14))
    assert (plan.rows, plan.columns, plan.kept, plan.experts) == (3, 14, (3, 0, 14), 17)


def test_a_plan_cannot_be_changed_and_can_be_a_key() -> None:
    plan = dense()
    with pytest.raises(dataclasses.FrozenInstanceError):
        plan.expert_rank = 2  # type: ignore[misc]
    assert {plan: "value"}[MaskPlan.from_json(plan.to_json())] == "value"


def test_with_rates_gives_each_row_its_rate() -> None:
    plan = allocation((1, 2)).with_rates((0.25, 0.5))
    assert plan.drop_rate == ((0.25, 0.0), (0.5, 0.5))
    assert plan.row_rates() == (0.25, 0.5)


# ---------------------------------------------------------------- errors


def broken(**changes: object) -> Callable[[], MaskPlan]:
    """A call that builds a 2 x 2 plan, valid except for these fields."""
    fields = {"keep": ((1, 1), (1, 1)), "drop_rate": ((0, 0), (0, 0)), "targets": block_targets(2), **changes}
    return lambda: MaskPlan(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (broken(keep=()), ["keep is ()", "a list of rows"]),
        (broken(keep="ff"), ["keep is 'ff'", "a list of rows"]),
        (broken(keep=None), ["keep is None", "a list of rows"]),
        (broken(keep=((), ())), ["a row of keep is ()", "one value for each expert"]),
        (broken(keep=("11", "11")), ["a row of keep is '11'"]),
        (broken(keep=((1, 1), (1,))), ["keep has rows of 2 and 1 cells", "equally wide"]),
        (broken(keep=((1, 1), (1, 2))), ["a cell of keep is 2", "true, false, 1 or 0"]),
        (broken(keep=((1, 1), (1, "yes"))), ["a cell of keep is 'yes'"]),
        (broken(keep=((1, 1), (1, 1.0))), ["a cell of keep is 1.0"]),
        (broken(keep=((1,) * 17,) * 2, drop_rate=((0,) * 17,) * 2), ["17 columns", "1 to 16 experts wide"]),
        (
            broken(keep=((1,),) * 513, drop_rate=((0,),) * 513, targets=block_targets(513)),
            ["513 rows", f"at most {MAX_ROWS}"],
        ),
        (broken(drop_rate=((0, 0),)), ["drop_rate is 1 x 2 and keep is 2 x 2", "one value for each cell"]),
        (broken(drop_rate=((0,), (0,))), ["drop_rate is 2 x 1 and keep is 2 x 2"]),
        (broken(drop_rate=((0, 0), (0,))), ["drop_rate has rows of 2 and 1 cells"]),
        (broken(drop_rate=((0, 0), (0, 1))), ["a drop rate is 1:", "at least 0 and below 1"]),
        (broken(drop_rate=((0, 0), (0, 1.5))), ["a drop rate is 1.5"]),
        (broken(drop_rate=((0, 0), (0, -0.25))), ["a drop rate is -0.25"]),
        (broken(drop_rate=((0, 0), (0, float("nan")))), ["drop_rate is nan", "a finite number"]),
        (broken(drop_rate=((0, 0), (0, float("inf")))), ["drop_rate is inf", "a finite number"]),
        (broken(drop_rate=((0, 0), (0, "half"))), ["drop_rate is 'half'", "a number"]),
        (broken(drop_rate=((0, 0), (0, None))), ["drop_rate is None", "a number"]),
        (broken(drop_rate=((0, 0), (0, True))), ["drop_rate is True", "a number"]),
        (broken(drop_rate=0.5), ["drop_rate is 0.5", "a list of rows"]),
        (broken(targets=("blocks.0.attn.qkv",)), ["1 targets for 2 rows", "exactly one linear layer for each row"]),
        (broken(targets=("blocks.0 attn", "head")), ["'blocks.0 attn'", "for example blocks.0.attn.qkv"]),
        (broken(targets=("", "head")), ["'' is not a module name"]),
        (broken(targets=("blocks..qkv", "head")), ["'blocks..qkv' is not a module name"]),
        (broken(targets=("head\n", "head")), ["is not a module name"]),
        (broken(targets=(7, "head")), ["7 is not a module name"]),
        (broken(targets=("head", "head")), ["head is the target of two rows"]),
        (broken(expert_rank=0), ["expert_rank is 0", "whole number from 1 to 256"]),
        (broken(expert_rank=257), ["expert_rank is 257"]),
        (broken(expert_rank=1.0), ["expert_rank is 1.0"]),
        (broken(expert_rank=True), ["expert_rank is True"]),
        (broken(expert_rank="2"), ["expert_rank is '2'"]),
        (broken(coefficient_init=0), ["coefficient_init is 0", "from 1e-06"]),
        (broken(coefficient_init=1001), ["coefficient_init is 1001", "at most 1000"]),
        (broken(coefficient_init=float("inf")), ["coefficient_init is inf", "finite"]),
        (broken(coefficient_init="one"), ["coefficient_init is 'one'", "a number"]),
        (broken(train_coefficients=1), ["train_coefficients is 1", "true or false"]),
        (broken(train_coefficients="yes"), ["train_coefficients is 'yes'"]),
        (lambda: dense().with_rates((0.5,) * 11), ["11 drop rates for 12 rows"]),
    ],
)
def test_an_error_names_the_value_and_the_rule(call: Callable[[], MaskPlan], words: list[str]) -> None:
    with pytest.raises(PlanError) as error:
        call()
    for word in words:
        assert word in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 250


@pytest.mark.parametrize(
    "call",
    [
        broken(keep="f" * 5000),
        broken(keep=((1, 1), (1, "f" * 5000))),
        broken(drop_rate=((0, 0), (0, "f" * 5000))),
        broken(drop_rate=((0, 0), (0, 10**300))),
        broken(targets=("a " * 5000, "head")),
        broken(targets=("a" * 5000, "a" * 5000)),
        broken(expert_rank="f" * 5000),
        broken(train_coefficients="f" * 5000),
        lambda: MaskPlan.from_json('{"keep": [[1]], "drop_rate": [[0]], "targets": ["a"], "' + "k" * 5000 + '": 1}'),
        lambda: MaskPlan.from_code("m1_1x1_1_0_n" + "a " * 5000),
    ],
)
def test_an_error_stays_one_short_sentence_however_long_the_value(call: Callable[[], MaskPlan]) -> None:
    with pytest.raises(PlanError) as error:
        call()
    assert len(str(error.value)) < 300


def test_the_error_for_a_rate_that_rounds_to_one_mentions_the_rounding() -> None:
    """0.99999 is below 1, so "must be below 1" alone would not help; rates are rounded to four decimals."""
    with pytest.raises(PlanError, match="rounded to four decimals"):
        MaskPlan(((True,),), ((0.99999,),), ("head",))


def test_an_initial_lambda_that_underflows_in_float32_is_refused() -> None:
    """λ is float32 in the network: an expert with an initial λ of 0 can never learn."""
    with pytest.raises(PlanError, match="1e-60"):
        MaskPlan(((True,),), ((0.0,),), ("head",), coefficient_init=1e-60)


# ---------------------------------------------------------------- malformed JSON


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "this is not JSON"),
        ("{", "this is not JSON"),
        ("keep: 1", "this is not JSON"),
        ("[" * 100_000, "this is not JSON"),
        ("\ufeff{}", "this is not JSON"),
        ("null", "a plan is a JSON object"),
        ("[]", "a plan is a JSON object"),
        ("3", "a plan is a JSON object"),
        ('"m1_12x8_ff*12_.5*12"', "a plan is a JSON object"),
        ("{}", "the plan lacks drop_rate, keep, targets"),
        ('{"keep": [[1]], "targets": ["a"]}', "the plan lacks drop_rate"),
        ('{"keep": [[1]], "drop_rate": [[0]], "targets": ["a"], "rank": 2}', "unknown entry 'rank'"),
        ('{"keep": [[1]], "drop_rate": [[0]], "targets": "a"}', "targets is 'a': it must be a list"),
        ('{"keep": [[1]], "drop_rate": [[0]], "targets": null}', "targets is None"),
        ('{"keep": [[1]], "drop_rate": [[0]], "targets": {"0": "a"}}', "targets is {'0': 'a'}"),
        ('{"keep": {"0": [1]}, "drop_rate": [[0]], "targets": ["a"]}', "keep is {'0': [1]}"),
        ('{"keep": [[1]], "drop_rate": [[NaN]], "targets": ["a"]}', "drop_rate is nan"),
        ('{"keep": [[1]], "drop_rate": [[1e999]], "targets": ["a"]}', "drop_rate is inf"),
        ('{"keep": [[[]]], "drop_rate": [[0]], "targets": ["a"]}', "a cell of keep is []"),
        ('{"keep": [[1]], "drop_rate": [[0]], "targets": [["a"]]}', "['a'] is not a module name"),
        ('{"keep": [[1]], "drop_rate": [[0]], "targets": ["a"], "expert_rank": null}', "expert_rank is None"),
    ],
)
def test_malformed_json(text: str, words: str) -> None:
    with pytest.raises(PlanError) as error:
        MaskPlan.from_json(text)
    assert words in str(error.value)
    assert len(str(error.value)) < 300


def with_value(field: str, value: str) -> str:
    """A plan of one cell as JSON, one field replaced by this text."""
    fields = {"keep": "[[1]]", "drop_rate": "[[0]]", "targets": '["a"]', "coefficient_init": "1", "expert_rank": "1"}
    return "{" + ", ".join(f'"{name}": {text}' for name, text in {**fields, field: value}.items()) + "}"


@pytest.mark.parametrize("digits", [20, 400, 5000])
@pytest.mark.parametrize("field", ["keep", "drop_rate", "expert_rank", "coefficient_init"])
def test_a_whole_number_too_large_for_a_float_is_a_plan_error(field: str, digits: int) -> None:
    number = "9" * digits
    with pytest.raises(PlanError):
        MaskPlan.from_json(with_value(field, f"[[{number}]]" if field in ("keep", "drop_rate") else number))


@pytest.mark.parametrize("depth", [10, 400, 950, 3000, 100_000])
@pytest.mark.parametrize("field", ["keep", "drop_rate", "targets", "expert_rank", "coefficient_init", "odd"])
def test_deep_nesting_is_a_plan_error(field: str, depth: int) -> None:
    with pytest.raises(PlanError):
        MaskPlan.from_json(with_value(field, "[" * depth + "1" + "]" * depth))


def test_python_data_of_the_wrong_kind_is_a_plan_error() -> None:
    """`from_dict` and the constructor also validate data that JSON cannot hold."""
    good = {"keep": [[1]], "drop_rate": [[0]], "targets": ["a"]}
    for data in ({**good, "targets": b"a"}, {**good, "keep": b"1"}, {**good, 7: 1}, {**good, 7: 1, "x": 2}):
        with pytest.raises(PlanError):
            MaskPlan.from_dict(data)
    for targets in (None, 3):
        with pytest.raises(PlanError):
            MaskPlan(((1,),), ((0,),), targets)  # type: ignore[arg-type]


def accepts_or_refuses(read: Callable[[str], MaskPlan], text: str) -> bool:
    """Whether a text is a plan. Anything but a plan that round-trips or a PlanError is a failure."""
    try:
        plan = read(text)
    except PlanError:
        return False
    assert MaskPlan.from_code(plan.code) == plan == MaskPlan.from_json(plan.to_json()), text
    return True


def edited(draw: random.Random, text: str, alphabet: str) -> str:
    """A few random edits: delete, insert, replace, repeat or cut."""
    for _ in range(draw.randint(1, 3)):
        at, end = sorted((draw.randint(0, len(text)), draw.randint(0, len(text))))
        new = "".join(draw.choices(alphabet, k=draw.randint(1, 3)))
        text = draw.choice(
            (text[:at] + text[at + 1 :], text[:at] + new + text[at:], text[:at] + new + text[at + 1 :],
             text[:at] + text[at:end] * 2 + text[end:], text[:at])
        )  # fmt: skip
    return text


def test_fuzzed_codes_are_plans_or_plan_errors() -> None:
    draw = random.Random(20_260)
    outcomes = [
        accepts_or_refuses(MaskPlan.from_code, edited(draw, draw.choice(PLANS).code, "m10x9f*-_.,~urctn+e ²٣é\n\0"))
        for _ in range(6000)
    ]
    assert 0 < sum(outcomes) < len(outcomes)  # the edits give valid and broken codes


def test_fuzzed_json_text_is_a_plan_or_a_plan_error() -> None:
    draw = random.Random(20_261)
    small = [plan for plan in PLANS if plan.rows * plan.columns <= 24]
    outcomes = [
        accepts_or_refuses(
            MaskPlan.from_json, edited(draw, draw.choice(small).to_json(), '{}[],:"019.-eE\\u nultrfa\0é')
        )
        for _ in range(4000)
    ]
    assert 0 < sum(outcomes) < len(outcomes)


def test_json_with_any_node_replaced_is_a_plan_or_a_plan_error() -> None:
    draw = random.Random(20_262)
    odd = ["null", "true", "false", '""', '"blocks.0.attn.qkv"', "[]", "[[]]", "{}", '{"a": 1}', "-1", "0", "0.5",
           "1e400", "-1e400", "NaN", "1e-320", "7" * 330, '["a", "a"]', "[[0.5]]", '"\\ud800"', "[null]",
           "[[1, 1]]"]  # fmt: skip
    small = [plan for plan in PLANS if plan.rows * plan.columns <= 12]
    outcomes = []
    for _ in range(4000):
        data = draw.choice(small).to_dict()
        node: object = data
        while True:
            keys = list(data if node is data else range(len(node)))  # type: ignore[arg-type]
            key = draw.choice(keys)
            inner = node[key]  # type: ignore[index]
            if not isinstance(inner, list) or not inner or draw.random() < 0.4:
                node[key] = "@"  # type: ignore[index]
                break
            node = inner
        text = json.dumps(data).replace('"@"', draw.choice(odd))
        outcomes.append(accepts_or_refuses(MaskPlan.from_json, text))
    assert 0 < sum(outcomes) < len(outcomes)


# ---------------------------------------------------------------- malformed codes


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("", "'' is not a mask code: one looks like m1_12x8_ff*12_.5*12"),
        ("m1", "is not a mask code"),
        ("m2_12x8_ff*12_.5*12", "'m2_12x8_ff*12_.5*12' is not a mask code"),
        ("m1_12x_ff*12_.5*12", "is not a mask code"),
        ("m1_0x8_ff_0", "the mask code says 0 x 8"),
        ("m1_12x0_0*12_0*12", "the mask code says 12 x 0"),
        ("m1_12x17_ff*12_.5*12", "the mask code says 12 x 17"),
        ("m1_999x8_ff*999_.5*999", "the mask code says 999 x 8"),
        ("m1_12x8_ff*11_.5*12", "kept experts for 11 rows: it must be 12"),
        ("m1_12x8_ff*12_.5*13", "drop rates for 13 rows: it must be 12"),
        ("m1_12x8_100*12_.5*12", "'100' in the mask code is not a row of 8 experts"),
        ("m1_12x8_FF*12_.5*12", "'FF' in the mask code is not a row"),
        ("m1_12x8_*12_.5*12", "'' in the mask code is not a row"),
        ("m1_12x8_ff*0_.5*12", "'ff*0' in the mask code has no valid number of repetitions"),
        ("m1_12x8_ff*x_.5*12", "'ff*x' in the mask code has no valid number of repetitions"),
        ("m1_12x8_ff*12_1.5*12", "a drop rate is 1.5"),
        ("m1_12x8_ff*12_half*12", "'half' in the mask code is not a number"),
        ("m1_12x8_ff*12_nan*12", "drop_rate is nan"),
        ("m1_1x8_ff_.5,.5", "2 drop rates for 8 experts in one row"),
        ("m1_1x8_0_.5,.5", "2 drop rates for 0 experts in one row"),
        ("m1_12x8_ff*12_.5*12_r0", "expert_rank is 0"),
        ("m1_12x8_ff*12_.5*12_c0", "coefficient_init is 0"),
        ("m1_12x8_ff*12_.5*12_c1e9", "coefficient_init is 1e+09"),
        ("m1_12x8_ff*12_.5*12_c1.2.3", "'1.2.3' in the mask code is not a number"),
        ("m1_12x8_ff*12_.5*12_x", "'x' in the mask code is unknown"),
        ("m1_12x8_ff*12_.5*12_", "'' in the mask code is unknown"),
        ("m1_12x8_ff*12_.5*12_t", "is not a module name"),
        ("m1_12x8_ff*12_.5*12_nhead", "1 targets for 12 rows"),
        ("m1_2x8_ff*2_.5*2_nhead,head", "head is the target of two rows"),
    ],
)
def test_malformed_code(code: str, words: str) -> None:
    with pytest.raises(PlanError) as error:
        MaskPlan.from_code(code)
    assert words in str(error.value)
    assert len(str(error.value)) < 250


def test_white_space_around_a_code_is_ignored() -> None:
    assert MaskPlan.from_code("  m1_12x8_ff*12_.5*12\n") == uniform(0.5)

"""What the rules say of single things, and that they leave alone what is right."""

from __future__ import annotations

import pytest
from attrs import evolve

from velollm_core.backends.advice import Goal, Requirements
from velollm_core.config import Range, Role, problems
from velollm_core.hardware.spec import CpuInfo
from velollm_core.hardware.threads import decode_threads
from velollm_core.optimize.memory import resolve, streams
from velollm_core.optimize.words import round_figure


def changes(profiles, machine, model="small", engine="llamacpp", **wanted):
    return dict(profiles.planned(profiles.advice(machine, model, engine, **wanted)).changes)


def reasons(plan):
    return {name: entry.reason for entry in plan.kept for name in entry.knobs}


@pytest.mark.parametrize(
    ("machine", "model"),
    [
        ("nvidia-24gb", "8b"),
        ("nvidia-80gb", "8b"),
        ("apple-64gb", "8b"),
        ("hybrid-32gb", "small"),
        ("two-sockets", "70b"),
    ],
)
def test_a_machine_where_the_default_is_right_gets_no_proposal(profiles, machine, model):
    plan = profiles.planned(profiles.advice(machine, model))
    assert plan.proposals == ()
    assert plan.withdrawn == ()
    assert plan.obstacle is None


@pytest.mark.parametrize(
    ("cpu", "threads"),
    [
        ({"logical": 16, "physical": 8}, 8),
        ({"logical": 20, "physical": 14, "performance_cores": 6}, 6),
        ({"logical": 128, "physical": 64, "quota_cpus": 2.0}, 2),
        ({"logical": 128, "physical": 64, "quota_cpus": 1.5}, 1),
        ({"logical": 128, "physical": 64, "quota_cpus": 0.5}, 1),
        ({"logical": 128, "physical": 64, "quota_cpus": 57.0}, 56),
        ({"logical": 128, "physical": 64, "usable_cpus": (0, 1, 2, 3)}, 4),
        ({"logical": 128, "physical": 64, "usable_cpus": (0, 1), "quota_cpus": 8.0}, 2),
    ],
)
def test_threads_are_one_a_fast_core_and_no_more_than_may_run(cpu, threads):
    assert decode_threads(CpuInfo(model="", architecture="", **cpu)) == threads


def test_two_threads_a_core_set_by_hand_become_one(profiles):
    case = profiles.advice("nvidia-24gb", "8b", changes={"threads": 16})
    (entry,) = profiles.planned(case).proposals
    (move,) = entry.moves
    assert (move.knob, move.current, move.proposed) == ("threads", 16, 8)
    assert move.origin == "the user's file"


def test_fewer_threads_than_cores_set_by_hand_are_left_unless_most_cores_idle(profiles):
    assert changes(profiles, "nvidia-24gb", "8b", changes={"threads": 6}) == {}
    assert changes(profiles, "nvidia-24gb", "8b", changes={"threads": 1}) == {"threads": 8}


def test_too_few_threads_that_read_prompts_become_as_many_as_generate(profiles):
    assert changes(profiles, "laptop-8gb", changes={"threads_batch": 1})["threads_batch"] == 4
    assert "threads_batch" not in changes(profiles, "laptop-8gb", changes={"threads_batch": 2})


def test_slow_cores_read_prompts_only_for_who_asks_for_speed_and_then_with_low_confidence(profiles):
    assert "threads_batch" not in changes(profiles, "hybrid-32gb")
    plan = profiles.planned(profiles.advice("hybrid-32gb", "small", goal=Goal.LATENCY))
    (entry,) = (entry for entry in plan.proposals if entry.moves[0].knob == "threads_batch")
    assert entry.moves[0].proposed == 14
    assert entry.confidence == "low"


def test_the_engine_goes_on_placing_layers_itself(profiles):
    for machine in ("nvidia-8gb", "nvidia-24gb-and-8gb"):
        plan = profiles.planned(profiles.advice(machine, "moe-30b"))
        assert "gpu_layers" not in plan.changes
        assert "itself" in reasons(plan)["gpu_layers"] or "own" in reasons(plan)["gpu_layers"]


@pytest.mark.parametrize("layers", [0, 10, 9999])
def test_a_number_of_layers_that_does_not_fit_or_wastes_the_card_goes_back_to_the_engine(
    profiles, layers
):
    made = changes(profiles, "nvidia-12gb", "moe-47b", changes={"gpu_layers": layers})
    assert made["gpu_layers"] == -1


def test_a_number_of_layers_that_is_the_most_is_left(profiles):
    assert "gpu_layers" not in changes(profiles, "nvidia-24gb", "8b", changes={"gpu_layers": 99})


def test_what_a_user_requires_is_set_and_never_less(profiles):
    wanted = Requirements(context_tokens=32768)
    for engine, knob in (("llamacpp", "context"), ("ollama", "num_ctx")):
        made = changes(profiles, "nvidia-8gb", "8b", engine, requirements=wanted)
        assert made[knob] == 32768


def test_requests_at_once_get_slots_and_keep_the_shared_cache(profiles):
    wanted = Requirements(context_tokens=4096, parallel=8)
    made = changes(profiles, "nvidia-24gb", "8b", requirements=wanted)
    assert made["slots"] == 8
    assert made["kv_unified"] is True  # else the engine would split it
    assert made.get("context", 131072) >= 8 * 4096
    made = changes(profiles, "nvidia-24gb", "8b", "ollama", requirements=wanted)
    assert made["num_parallel"] == 8
    assert made["num_ctx"] >= 4096  # less than Ollama's own, which would not fit eight times


def test_more_than_the_model_was_trained_for_is_an_obstacle(profiles):
    case = profiles.advice("nvidia-24gb", "small", requirements=Requirements(context_tokens=9000))
    plan = profiles.planned(case)
    assert plan.proposals == ()
    assert "8192" in plan.obstacle
    assert "9000" in plan.obstacle


def test_a_context_that_is_set_is_not_lowered_whatever_the_goal(profiles):
    for goal in Goal:
        made = changes(profiles, "nvidia-24gb", "8b", goal=goal, changes={"context": 60000})
        assert "context" not in made


@pytest.mark.parametrize("goal", Goal)
def test_what_changes_answers_is_never_proposed_and_what_it_would_save_is_told(profiles, goal):
    for machine in ("nvidia-8gb", "hybrid-32gb", "container-2-of-64"):
        plan = profiles.planned(profiles.advice(machine, "8b", goal=goal))
        assert {m.numerics for p in plan.proposals for m in p.moves} <= {"exact", "rounding"}
        assert "changes answers" in reasons(plan)["cache_type_k"]
        assert "cache_type_k=q8_0,cache_type_v=q8_0" in reasons(plan)["cache_type_k"]


def test_a_cache_that_is_quantized_in_one_half_alone_is_called_so(profiles):
    case = profiles.advice("nvidia-24gb", "8b", changes={"cache_type_v": "q8_0"})
    assert "quantized already" in reasons(profiles.planned(case))["cache_type_k"]


def test_where_only_a_quantized_cache_fits_that_is_left_to_the_user(profiles):
    plan = profiles.planned(profiles.advice("laptop-8gb", "8b"))
    assert plan.proposals == ()
    assert "With cache_type_k=q8_0,cache_type_v=q8_0, which changes answers" in plan.obstacle


def test_a_quantized_kv_cache_that_would_put_all_layers_on_the_card_is_named_and_not_proposed(
    profiles,
):
    case = profiles.advice("nvidia-8gb", "8b", requirements=Requirements(context_tokens=24576))
    plan = profiles.planned(case)
    assert "cache_type_k" not in plan.changes
    assert "all layers" in reasons(plan)["cache_type_k"]


def test_more_slots_for_throughput_do_not_split_a_context_that_is_set(profiles):
    own = {"context": 8192, "kv_unified": False, "slots": 2}
    made = changes(profiles, "nvidia-24gb", "8b", goal=Goal.THROUGHPUT, changes=own)
    assert made["slots"] > 2
    assert made["context"] == made["slots"] * 4096


def obstacle_of(case, profiles):
    """What is said, and the context that it says would fit."""
    said = profiles.planned(case).obstacle
    return said, int(said.partition("--context ")[2].partition(".")[0])


def test_a_context_that_is_set_too_large_is_named_and_what_would_fit_can_be_asked_for(profiles):
    own = {"context": 131072}
    said, fits = obstacle_of(profiles.advice("container-2-of-64", "8b", changes=own), profiles)
    assert "context of 131072 tokens (context: the user's file)" in said
    wanted = Requirements(context_tokens=fits)
    made = changes(profiles, "container-2-of-64", "8b", changes=own, requirements=wanted)
    assert made["context"] == fits
    more = Requirements(context_tokens=fits + 256)
    case = profiles.advice("container-2-of-64", "8b", changes=own, requirements=more)
    assert "(--context)" in profiles.planned(case).obstacle


def test_what_does_not_fit_is_told_a_request(profiles):
    own, wanted = {"slots": 2, "kv_unified": False, "context": 2 * 65536}, Requirements(parallel=4)
    case = profiles.advice("hybrid-32gb", "8b", changes=own, requirements=wanted)
    said, fits = obstacle_of(case, profiles)
    assert "a context of 65536 tokens for each of 4 requests" in said
    wanted = Requirements(context_tokens=fits, parallel=4)
    made = changes(profiles, "hybrid-32gb", "8b", changes=own, requirements=wanted)
    assert (made["slots"], made["context"]) == (4, 4 * fits)


def test_a_larger_context_that_is_set_goes_for_a_smaller_one_only_where_memory_is_wanted(profiles):
    more = {"changes": {"context": 32768}, "requirements": Requirements(context_tokens=8192)}
    assert "context" not in changes(profiles, "nvidia-24gb", "8b", **more)
    made = changes(profiles, "nvidia-24gb", "8b", goal=Goal.MEMORY, **more)
    assert made["context"] == 8192


@pytest.mark.parametrize("count", [1, 2, 255, 2**20 - 1, 8191 * 1024])
def test_a_round_figure_is_less_by_an_eighth_at_most_and_stays_what_it_is(count):
    figure = round_figure(count)
    assert count * 7 / 8 < figure <= count
    assert round_figure(figure) == figure


def test_flash_attention_that_somebody_turned_off_is_proposed_again(profiles):
    made = changes(profiles, "nvidia-24gb", "8b", changes={"flash_attention": "off"})
    assert made == {"flash_attention": "auto"}


def test_weights_kept_twice_are_kept_once_where_memory_is_short(profiles):
    assert changes(profiles, "container-2-of-64", "8b")["load_mode"] == "none"
    assert "load_mode" not in changes(profiles, "two-sockets", "8b")


def test_a_batch_is_larger_where_weights_are_carried_to_the_card(profiles):
    assert changes(profiles, "nvidia-8gb", "moe-47b")["ubatch"] == 2048
    assert "ubatch" not in changes(profiles, "nvidia-24gb", "8b")
    assert "ubatch" not in changes(profiles, "apple-16gb", "8b")  # there is nothing to carry


def test_a_batch_that_is_the_engines_own_choice_is_not_called_a_figure_that_is_set(profiles):
    kept = reasons(profiles.planned(profiles.advice("nvidia-24gb", "8b", "ollama")))
    assert "what else the engine chooses" in kept["num_batch"]
    kept = reasons(profiles.planned(profiles.advice("nvidia-24gb", "8b")))
    assert "512 tokens are computed at once" in kept["ubatch"]


def test_the_prompt_cache_leaves_memory_to_the_model(profiles):
    case = profiles.advice("laptop-8gb", "small")
    assert dict(profiles.planned(case).changes) == {"cache_ram": 3840}
    unlimited = profiles.advice("hybrid-32gb", "small", changes={"cache_ram": -1})
    assert dict(profiles.planned(unlimited).changes) == {"cache_ram": 8192}


def test_goals_change_what_is_proposed(profiles):
    made = {goal: changes(profiles, "nvidia-24gb", "8b", goal=goal) for goal in Goal}
    assert made[Goal.BALANCED] == {}
    assert made[Goal.THROUGHPUT] == {"slots": 8, "kv_unified": True}
    assert made[Goal.MEMORY]["context"] == 8192
    assert made[Goal.MEMORY]["ubatch"] < 512


@pytest.mark.parametrize("goal", Goal)
@pytest.mark.parametrize("engine", ["llamacpp", "ollama"])
@pytest.mark.parametrize(
    ("machine", "model", "required"),
    [
        ("laptop-8gb", "8b", Requirements(context_tokens=2048)),
        ("nvidia-8gb", "moe-30b", Requirements()),
        ("nvidia-16gb", "8b", Requirements(parallel=6)),
        ("nvidia-16gb", "8b", Requirements(context_tokens=8192)),
        ("hybrid-32gb", "window-12b", Requirements()),
    ],
)
def test_every_goal_and_requirement_is_satisfied_by_its_own_plan(
    profiles, goal, engine, machine, *, model, required
):
    wanted = {"goal": goal, "requirements": required}
    case = profiles.advice(machine, model, engine, **wanted)
    first = profiles.planned(case)
    assert first.obstacle is None
    made = resolve(case.context, first.changes).use
    assert made.slots >= (required.parallel or 1)
    assert made.context_tokens // streams(made) >= (required.context_tokens or 1)
    again = profiles.advice(machine, model, engine, changes=first.changes, **wanted)
    assert profiles.planned(again).proposals == ()


def test_a_card_whose_memory_no_tool_tells_leaves_memory_alone_and_says_so(profiles):
    case = profiles.advice("nvidia-8gb", "70b")
    card = evolve(case.context.hardware.gpus[0], memory_total_bytes=None, memory_free_bytes=None)
    case.context = evolve(case.context, hardware=evolve(case.context.hardware, gpus=(card,)))
    plan = profiles.planned(case)
    assert plan.obstacle is None
    assert plan.proposals == ()
    assert "cannot be told" in reasons(plan)["gpu_layers"]


def test_requests_at_once_that_the_engine_cannot_answer_are_an_obstacle(profiles):
    case = profiles.advice("nvidia-24gb", "8b", requirements=Requirements(parallel=4))
    knobs = tuple(
        evolve(knob, domain=Range(1, 1)) if knob.name == "slots" else knob
        for knob in case.context.knobs
    )
    one = evolve(case.context.current, config=case.context.current.config | {"slots": 1})
    case.context = evolve(case.context, knobs=knobs, current=one)
    case.check = lambda config: problems(knobs, config)
    plan = profiles.planned(case)
    assert plan.proposals == ()
    assert plan.obstacle.startswith("4 requests at once are required")


def test_without_the_models_header_threads_are_advised_and_memory_is_not(profiles):
    case = profiles.advice("container-2-of-64", "8b")
    unread = evolve(case.context, model=evolve(case.context.model, spec=None))
    case.context = unread
    plan = profiles.planned(case)
    assert dict(plan.changes) == {"threads": 2}
    assert plan.rooms == ()


def test_what_is_required_is_set_where_memory_cannot_be_told(profiles):
    wanted = Requirements(context_tokens=8192, parallel=6)
    case = profiles.advice("nvidia-8gb", "8b", requirements=wanted)
    case.context = evolve(case.context, model=evolve(case.context.model, spec=None))
    plan = profiles.planned(case)
    assert plan.obstacle is None
    assert dict(plan.changes) == {"slots": 6, "kv_unified": True, "context": 6 * 8192}
    (slots_and_context,) = plan.proposals
    assert "cannot be told" in slots_and_context.effect


def test_what_is_required_of_an_engine_that_tells_nothing_is_not_passed_over(profiles):
    case = profiles.advice("nvidia-8gb", "8b", requirements=Requirements(context_tokens=8192))
    unread = evolve(case.context.model, spec=None)
    case.context = evolve(case.context, model=unread, knobs=())
    assert "8192 tokens a request cannot be told" in profiles.planned(case).obstacle


def test_nothing_is_said_of_a_knob_whose_value_is_not_known(profiles):
    case = profiles.advice("container-2-of-64", "8b")
    known = evolve(case.context.current, config=case.context.current.config.__class__())
    case.context = evolve(case.context, current=known, defaults=known)
    plan = profiles.planned(case)
    assert plan.proposals == ()
    assert plan.kept == ()


def test_rules_go_by_role_and_serve_an_engine_with_other_names(profiles):
    case = profiles.advice("container-2-of-64", "8b")
    renamed = {knob.name: f"x_{knob.name}" for knob in case.context.knobs}

    def rename(settings):
        config = type(settings.config)({renamed[k]: v for k, v in settings.config.items()})
        return evolve(settings, config=config, origins={})

    knobs = tuple(evolve(knob, name=renamed[knob.name]) for knob in case.context.knobs)
    knobs = tuple(knob for knob in knobs if knob.role is not Role.LOAD)
    case.context = evolve(
        case.context,
        knobs=tuple(evolve(knob, active_when=None) for knob in knobs),
        defaults=rename(case.context.defaults),
        current=rename(case.context.current),
        footprint=lambda _: None,
    )
    case.check = lambda _: ()
    assert set(profiles.planned(case).changes) == {"x_threads", "x_context", "x_cache_ram"}

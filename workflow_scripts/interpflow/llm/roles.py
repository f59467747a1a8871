"""Who may play which role: checked before anything runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from interpflow.config.llm import RoleModel
from interpflow.config.model import ModelSettings
from interpflow.config.settings import Config
from interpflow.errors import UserError
from interpflow.llm.asks import Role
from interpflow.llm.families import ModelIdentity, identity_of
from interpflow.tasks.nlp.judged_items import asks_free

# What the offline algorithms of a role are. They differ in kind from each other and from every
# model, so none of them judges its own kind.
OFFLINE_ALGORITHMS: dict[Role, str] = {
    "generator": "template", "validator": "lexicon", "judge": "rules", "proposer": "contrast",
    "interrogator": "policy", "agent": "policy",
}  # fmt: skip
REMEDY = "choose a model of another family, or state its `family` where the name misleads"


@dataclass(frozen=True)
class Use:
    """What a configured study asks of language models, and which models it measures.

    checks: the roles, of those asked, that check what the generator wrote.
    """

    study: str
    roles: tuple[Role, ...]
    models: tuple[str, ...]
    checks: tuple[Role, ...] = ("validator",)


@dataclass(frozen=True)
class Player:
    """One model (or algorithm) in a role; `key` is where the config says so."""

    key: str
    role: Role
    settings: RoleModel
    identity: ModelIdentity

    @property
    def shown(self) -> str:
        if self.settings.provider == "offline":
            return f"the offline {OFFLINE_ALGORITHMS[self.role]}"
        families = " and ".join(sorted(self.identity.families))
        told = "" if self.identity.is_known or self.settings.family else ", taken from its name"
        return f"{self.settings.model} (family {families}{told})"


def uses(config: Config) -> list[Use]:
    """The studies of the config that ask language models anything."""
    found: list[Use] = []
    counting, robustness = config.counting, config.robustness
    if counting is not None and counting.data.source != "systematic":
        models = tuple(config.counting_models())
        found.append(Use("counting", ("generator", "validator"), models))
    if robustness is not None:
        asked: tuple[tuple[Role, bool], ...] = (
            ("generator", robustness.perturbations.rewrites is not None),
            ("validator", robustness.semantics.validator),
            ("judge", robustness.scoring.judge),
        )
        roles: tuple[Role, ...] = tuple(role for role, is_asked in asked if is_asked)
        if roles:
            found.append(Use("robustness", roles, tuple(config.robustness_models())))
    surgery = config.layer_surgery
    if surgery is not None:
        writing: tuple[Role, ...] = ("generator",) if surgery.tasks.written else ()
        # Judges written items, and answers that no rule scores.
        if surgery.tasks.written or asks_free(surgery.tasks):
            writing = (*writing, "judge")
        acting: tuple[Role, ...] = ("agent",) if surgery.agent else ()
        if writing or acting:
            models = tuple(config.layer_surgery_models())
            found.append(Use("layer_surgery", (*writing, *acting), models, checks=("judge",)))
    return found


def used_roles(config: Config) -> dict[Role, list[Player]]:
    """The roles that some configured study needs, with who plays each."""
    return {role: players(config, role) for use in uses(config) for role in use.roles}


def players(config: Config, role: Role) -> list[Player]:
    """Who plays a role. Raises UserError for a local model that `models` does not name."""
    given = getattr(config.llm.roles, role)
    several = given if isinstance(given, list) else [given]
    keys = [
        f"llm.roles.{role}" + (f".{i}" if isinstance(given, list) else "")
        for i in range(len(several))
    ]
    return [
        Player(key, role, settings, _identity(config, role, settings, key))
        for key, settings in zip(keys, several, strict=True)
    ]


def check_roles(config: Config) -> None:
    """Raise UserError, naming both keys, where a model would check its own kind or be measured on
    data that it made or validated."""
    problems = [problem for use in uses(config) for problem in _problems(config, use)]
    if not config.llm.allow_contaminated:
        problems += [
            UserError(
                reason,
                where=f"models.{name} and {key}",
                remedy="leave the model out of the study, let another model play the role, or set "
                "llm.allow_contaminated: true, and every table will say so",
            )
            for name, (key, reason) in _contamination(config).items()
        ]
    if len(problems) == 1:
        raise problems[0]
    if problems:
        raise UserError(
            f"{len(problems)} roles of language models clash:\n"
            + "\n".join(f"  - {each.where}: {each.what}" for each in problems),
            where="llm.roles",
            remedy=REMEDY,
        )


def contamination(config: Config, study: str = "") -> dict[str, str]:
    """Why a model must not be measured on the data of a study (any, without a name), by its name
    under `models`.

    Empty for data that no model made. Tables of these models' results carry `contaminated`.
    """
    return {name: reason for name, (_, reason) in _contamination(config, study).items()}


def _contamination(config: Config, study: str = "") -> dict[str, tuple[str, str]]:
    found: dict[str, tuple[str, str]] = {}
    for use in uses(config):
        if study not in ("", use.study):
            continue
        makers = [
            player
            for role in ("generator", "validator")
            if role in use.roles
            for player in players(config, role)
            if player.settings.provider != "offline"
        ]
        for name in use.models:
            for maker in makers:
                if name not in found and _is_same(config, name, maker):
                    deed = "writes" if maker.role == "generator" else "validates"
                    reason = f"{maker.settings.model} {deed} the data on which {name} is measured"
                    found[name] = (maker.key, reason)
    return found


def _is_same(config: Config, name: str, player: Player) -> bool:
    if player.settings.provider == "local" and player.settings.model == name:
        return True
    return player.identity.same_model(model_identity(name, config.models[name]))


def _problems(config: Config, use: Use) -> Iterator[UserError]:
    """Pairs of a role and what it checks that are of one family."""
    generators = players(config, "generator") if "generator" in use.roles else []
    for role in use.checks:
        if role in use.roles:
            yield from _written(generators, players(config, role))
    if "validator" in use.roles:
        validators = players(config, "validator")
        yield from _votes(validators)
        yield from _without_vote(validators)
    if "judge" in use.roles:
        judges = players(config, "judge")
        yield from _judged(config, use.models, judges)
        yield from _votes(judges)


def _written(made: Sequence[Player], checking: Sequence[Player]) -> Iterator[UserError]:
    for maker in made:
        for checker in checking:
            if maker.identity.families & checker.identity.families:
                yield UserError(
                    f"{checker.shown} would validate what its own family wrote: {maker.shown}",
                    where=f"{maker.key} and {checker.key}",
                    remedy=REMEDY,
                )


def _votes(checking: Sequence[Player]) -> Iterator[UserError]:
    for i, first in enumerate(checking):
        for second in checking[i + 1 :]:
            if first.identity.families & second.identity.families:
                yield UserError(
                    f"the two votes of {first.shown} and {second.shown} are not independent",
                    where=f"{first.key} and {second.key}",
                    remedy=REMEDY,
                )


def _without_vote(validators: Sequence[Player]) -> Iterator[UserError]:
    """The lexicon among several validators: what it knows is never put to the vote."""
    for player in validators:
        if len(validators) > 1 and player.settings.provider == "offline":
            yield UserError(
                f"{player.shown} is asked before any vote; in one it knows no word, and holds back "
                "the votes of others",
                where=player.key,
                remedy="leave it out: the others are asked what the lexicon cannot decide",
            )


def _judged(config: Config, names: Sequence[str], judges: Sequence[Player]) -> Iterator[UserError]:
    for name in names:
        judged = model_identity(name, config.models[name])
        for judge in judges:
            if judged.families & judge.identity.families:
                yield UserError(
                    f"{judge.shown} would judge a model of its own family: {name}",
                    where=f"models.{name} and {judge.key}",
                    remedy=REMEDY,
                )


def model_identity(name: str, settings: ModelSettings, family: str | None = None) -> ModelIdentity:
    """The identity of a model under `models`, by where it comes from."""
    return identity_of(settings.hub or settings.local or settings.reference or name, family)


def _identity(config: Config, role: Role, settings: RoleModel, key: str) -> ModelIdentity:
    if settings.provider == "offline":
        name = f"offline:{OFFLINE_ALGORITHMS[role]}"
        return ModelIdentity(name, frozenset({name}), "")
    model = settings.model or ""
    if settings.provider == "local":
        if model not in config.models:
            raise UserError(
                f"no model named {model!r}",
                where=f"{key}.model",
                remedy=f"name one under `models`: {', '.join(config.models)}",
            )
        return model_identity(model, config.models[model], settings.family)
    return identity_of(model, settings.family)

"""How one target will answer one request: by which way, in how many calls, with what.

Everything is decided here before anything is sent. A parameter is said in the
endpoint's own words, or seen to by the gateway (several prompts, n, best_of, echo,
stop, a budget of 0), or dropped and named when it only shapes the sampling, or refused
when the answer would be wrong without it. A value that is the default anyway troubles
nobody.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..core import batch
from ..core.batch import Part
from ..core.parameter_aliases import rivals, without
from ..core.post_processing import PostProcessing
from ..core.request import DEFAULTS, CompletionRequest
from ..core.routing import CompletionMode, Target
from ..errors import GatewayError, InvalidRequest, UnsupportedParameter, UpstreamStatus
from ..providers.declaration import (
    LEGACY_PARAMS,
    Endpoint,
    ParamMapping,
    ParamMappings,
    Provider,
    UpstreamRequest,
)
from . import capabilities, modes
from .capabilities import ModelCapabilities

# Parameters that are decided one by one; the others are said or dropped.
_DECIDED = (
    "best_of",
    "echo",
    "logprobs",
    "max_tokens",
    "n",
    "stop",
    "stream",
    "stream_options",
    "suffix",
)


@dataclass(frozen=True, slots=True)
class Plan:
    """What will be asked, and what its answers will have to become.

    *wanted* is the request as the caller will see it answered; *dropped* are the names
    of parameters that it goes without. A *direct* answer is that to one call, and may
    pass through untouched. *stops* are the sequences that the gateway looks out for,
    *most* the calls that there may be.
    """

    provider: Provider
    target: Target
    mode: CompletionMode
    endpoint: Endpoint
    params: ParamMappings
    request: CompletionRequest
    parts: Sequence[Part]
    direct: bool
    most: int
    stops: Sequence[str] = ()
    dropped: Sequence[str] = ()
    warnings: Sequence[str] = ()

    def ask(self, part: Part, target: Target) -> UpstreamRequest:
        """The call for *part*, made of *target*, which may have got its key since."""
        return UpstreamRequest(
            self.provider, self.endpoint, target, part.request, self.params
        )

    def shape(self, part: Part) -> PostProcessing:
        """What the answer to *part* has to become."""
        return PostProcessing(
            prompt=part.request.prompt,
            count=part.request.n,
            echo=self.request.echo and "echo" not in self.params,
            stops=self.stops,
            suppress_text=_is_silent(self.request, self.endpoint),
            logprobs=part.request.logprobs is not None,
            may_reason=self.mode == CompletionMode.CHAT,
        )


def make_plan(
    provider: Provider, target: Target, request: CompletionRequest, most: int = 4096
) -> Plan:
    """How *target* answers *request*, in *most* calls at the most.

    Raises InvalidRequest if it cannot.
    """
    model = capabilities.describe_model(request.model, target.model_info)
    way = modes.choose_mode(provider, target, request, model)
    return Planner(provider, target, request, model, way, most).plan()


def replan_after_error(plan: Plan, error: GatewayError) -> Plan | None:
    """Another way to ask, if *error* says that it is the way that was wrong."""
    if not isinstance(error, UpstreamStatus) or error.status not in (
        400,
        404,
        405,
        422,
    ):
        return None
    request = plan.request
    model = capabilities.describe_model(request.model, plan.target.model_info)
    fitting = Planner(
        plan.provider,
        plan.target,
        request,
        model,
        plan.mode,
        plan.most,
    )
    if _wants_a_chat(plan, error):
        return replace(fitting, mode=CompletionMode.CHAT).plan()
    if _refuses_stream_options(plan, error):
        return fitting.plan(without=("stream_options",))
    return None


def _wants_a_chat(plan: Plan, error: UpstreamStatus) -> bool:
    free = plan.target.via is None and plan.mode == CompletionMode.NATIVE
    can = CompletionMode.CHAT in plan.provider.modes and not plan.request.suffix
    return free and can and modes.is_chat_only_error(error.message)


def _refuses_stream_options(plan: Plan, error: UpstreamStatus) -> bool:
    named = "stream_options" in (error.param or "") + error.message
    return plan.request.stream and "stream_options" in plan.params and named


def _is_silent(request: CompletionRequest, endpoint: Endpoint) -> bool:
    """Whether no token is wanted, and one has to be asked for."""
    return request.max_tokens == 0 and endpoint.least > 0


@dataclass(frozen=True, slots=True)
class Planner:
    """One request, on one way of one target."""

    provider: Provider
    target: Target
    request: CompletionRequest
    model: ModelCapabilities
    mode: CompletionMode
    most: int

    @property
    def endpoint(self) -> Endpoint:
        return self.provider.endpoint(self.mode, self.request.model)

    def plan(self, without: Collection[str] = ()) -> Plan:
        """The plan, for an endpoint *without* some of its parameters."""
        params = self._params(without)
        stops = self._stops_to_enforce(params)
        if stops or self._is_silent:
            # Where the text is cut, it has to be known where the prompt ends.
            params.pop("echo", None)
        self._refuse(params)
        said, dropped = self._sorted(params)
        budget, warnings = self._budget(params)
        said |= budget | self._stops_to_send(params) | self._asked_for(params)
        direct = self._is_direct(params, stops)
        result = Plan(
            self.provider,
            self.target,
            self.mode,
            self.endpoint,
            params,
            self._wanted(budget),
            self._parts(said, direct),
            direct,
            self.most,
            stops,
            dropped,
            warnings,
        )
        for part in result.parts:
            self.endpoint.check(result.ask(part, self.target))
        return result

    def _params(self, without: Collection[str]) -> dict[str, ParamMapping]:
        """The endpoint's parameters, as far as the model takes them."""
        lacks = {*self._lacked, *without}
        params = {k: v for k, v in self.endpoint.params.items() if k not in lacks}
        budget = params.get("max_tokens")
        if self.mode == CompletionMode.CHAT and budget and budget.name == "max_tokens":
            params["max_tokens"] = replace(budget, name=self.model.max_tokens)
        return params

    @property
    def _is_silent(self) -> bool:
        return _is_silent(self.request, self.endpoint)

    @property
    def _lacked(self) -> Collection[str]:
        """What the model refuses. What is known of models is known of their chats."""
        if self.mode == CompletionMode.CHAT:
            return self.model.lacks
        return self.target.model_info.get("lacks") or ()

    def _given(self, *names: str) -> dict[str, Any]:
        given = self.request.params
        return {name: given[name] for name in names if name in given}

    # What cannot be had

    def _refuse(self, params: ParamMappings) -> None:
        """Refuse what would make the answer wrong."""
        request = self.request
        self._refuse_prompts()
        if request.suffix and "suffix" not in params:
            raise self._unsupported("suffix", "does not fill in before a suffix")
        if request.logprobs is not None:
            self._refuse_logprobs(params, request.logprobs)
        if request.echo and "echo" not in params:
            self._refuse_echo()
        if request.drawn > request.n and not {"best_of", "logprobs"} & set(params):
            raise self._unsupported("best_of", "has nothing to rank candidates by")

    def _refuse_prompts(self) -> None:
        for prompt in self.request.prompts:
            if prompt is None and not self.endpoint.null:
                raise self._unsupported("prompt", "needs a prompt; null is none")
            tokens = prompt is not None and not isinstance(prompt, str)
            if tokens and not self.endpoint.tokens:
                raise self._unsupported("prompt", "takes text, not token ids")

    def _refuse_logprobs(self, params: ParamMappings, wanted: int) -> None:
        if "logprobs" not in params:
            raise self._unsupported("logprobs", "has no log probabilities")
        if not params["logprobs"].fits(wanted):
            most = params["logprobs"].high
            raise self._unsupported(
                "logprobs", f"has the alternatives of {most:g} tokens at most"
            )

    def _refuse_echo(self) -> None:
        if self.request.logprobs is not None and self._is_silent:
            raise self._unsupported(
                "max_tokens",
                "generates one token at least, whose score would stand among those of "
                "the prompt: ask for 1",
            )
        if self.request.logprobs is not None:
            raise self._unsupported(
                "echo",
                "has no log probabilities for the prompt: 'echo' and 'logprobs' cannot "
                "be had together",
            )
        if not all(isinstance(prompt, str) for prompt in self.request.prompts):
            raise self._unsupported("echo", "cannot echo token ids as text")

    def _unsupported(self, param: str, reason: str) -> UnsupportedParameter:
        way = "" if len(self.provider.modes) == 1 else f", asked via {self.mode},"
        return UnsupportedParameter(
            f"'{param}' is not supported: provider {self.provider.name}{way} {reason}.",
            param,
        )

    # What is said, and what is dropped

    def _sorted(self, params: ParamMappings) -> tuple[dict[str, Any], list[str]]:
        """The simple parameters: those that are said, and the names of the others."""
        said: dict[str, Any] = {}
        dropped = rivals(self.request.params)
        fields = self.request.params
        if dropped:
            fields = without(fields, dropped)
        for name, value in fields.items():
            if name in _DECIDED:
                continue
            if self._can_be_said(name, value, params):
                said[name] = value
            elif name not in DEFAULTS or value != DEFAULTS[name]:
                dropped.append(name)
        dropped += self._excluded(said)
        if dropped and self.target.strict_params:
            raise self._unsupported(
                dropped[0], "has no such parameter, or not this value"
            )
        return said, dropped

    def _excluded(self, said: dict[str, Any]) -> list[str]:
        """Take one of two that exclude each other out of *said*: a default, if any.

        The names of those that meant something.
        """
        meant = []
        for first, second in self.endpoint.exclusive:
            if first in said and second in said:
                idle = first if said[first] == DEFAULTS.get(first) else second
                meant += [idle] if said[idle] != DEFAULTS.get(idle) else []
                del said[idle]
        return meant

    def _can_be_said(self, name: str, value: Any, params: ParamMappings) -> bool:
        if name in params:
            return params[name].fits(value)
        unknown = name not in LEGACY_PARAMS and name not in self._lacked
        return unknown and self.endpoint.passes

    def _stops_to_enforce(self, params: ParamMappings) -> tuple[str, ...]:
        stops = self.request.stops
        fit = "stop" in params and params["stop"].fits(list(stops))
        return () if fit else stops

    def _stops_to_send(self, params: ParamMappings) -> dict[str, Any]:
        """The stop sequences as given, or as many as the endpoint takes."""
        if not self.request.stops or "stop" not in params:
            return {}
        param = params["stop"]
        if param.fits(list(self.request.stops)):
            return {"stop": self.request.params["stop"]}
        taken = [stop for stop in self.request.stops if param.takes(stop)]
        return {"stop": taken[: param.most]} if taken[: param.most] else {}

    def _budget(self, params: ParamMappings) -> tuple[dict[str, int], list[str]]:
        """The max_tokens to ask for, if any; and a word if it had to be raised."""
        asked, floor = self.request.max_tokens, self.model.token_floor
        limited = self.target.default_max_tokens is not None
        if limited and "max_tokens" not in params:
            raise self._unsupported(
                "max_tokens",
                "would not hear of it, and a limit of a key on tokens or money cannot "
                "be kept without",
            )
        if self._is_silent:
            return {"max_tokens": self.endpoint.least}, []
        if asked is None:
            asked = self.endpoint.default_max or self.target.default_max_tokens
        if asked is None:
            return {}, []
        if self.mode != CompletionMode.CHAT or asked >= floor:
            return {"max_tokens": asked}, []
        told = f"max_tokens raised from {asked} to {floor}: this model reasons first"
        return {"max_tokens": floor}, [told]

    def _wanted(self, budget: Mapping[str, int]) -> CompletionRequest:
        """The request, with what the endpoint had to be told besides."""
        if self.request.max_tokens is not None or not budget:
            return self.request
        return replace(self.request, defaults={**self.request.defaults, **budget})

    def _asked_for(self, params: ParamMappings) -> dict[str, Any]:
        """What was looked at one by one, and what a batch takes apart."""
        asked = self._given("echo", "logprobs", "suffix")
        known = {name: value for name, value in asked.items() if name in params}
        return known | self._given("best_of", "n", "stream", "stream_options")

    # In how many calls

    def _is_direct(self, params: ParamMappings, stops: Sequence[str]) -> bool:
        request, endpoint = self.request, self.endpoint
        alone = len(request.prompts) == 1 or endpoint.batches
        drawn = request.n <= endpoint.choices
        ranked = request.drawn > request.n and "best_of" not in params
        echoed = request.echo and "echo" not in params
        shaped = stops or ranked or echoed or self._is_silent
        return endpoint.raw and alone and drawn and not shaped

    def _parts(self, said: Mapping[str, Any], direct: bool) -> Sequence[Part]:
        kept = {k: v for k, v in said.items() if k not in ("stream", "stream_options")}
        if direct:
            streaming = self._given("stream", "stream_options")
            return (Part(replace(self.request, params=kept | streaming), 0, 0),)
        if self.request.stream:
            kept |= {"stream": True, "stream_options": {"include_usage": True}}
        self._refuse_too_many()
        whole = replace(self.request, params=kept)
        return batch.split(whole, self.endpoint.choices)

    def _refuse_too_many(self) -> None:
        """Before they are made: a million prompts are not worth a million parts."""
        prompts, drawn = len(self.request.prompts), self.request.drawn
        if prompts * -(-drawn // self.endpoint.choices) <= self.most:
            return
        raise InvalidRequest(
            f"Too many parallel completions requested. You submitted {prompts} prompts "
            f"for {drawn} completions each, but this provider generates at most "
            f"{self.most} for one request.",
            param="prompt",
            code="too_many_completions",
        )

"""Plans how one target answers one request: mode, parameters, number of calls.

Pure, and done before anything is sent. A parameter is sent in the endpoint's own terms;
or the gateway implements it (several prompts, n, best_of, echo, stop, max_tokens of 0);
or it is dropped, and the caller told its name, if it only shapes the sampling; or the
request is refused, if the answer would be wrong without it. A parameter with its
default value never causes a refusal.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..core import batch
from ..core.batch import Part
from ..core.parameter_aliases import duplicate_params, remove_params
from ..core.post_processing import PostProcessing
from ..core.request import DEFAULTS, LEGACY_PARAMS, NO_LIMIT, CompletionRequest
from ..core.routing import CompletionMode, Target
from ..errors import InvalidRequest, UnsupportedParameter
from ..providers.declaration import Endpoint, ParamMapping, ParamMappings, Provider
from ..providers.upstream_request import UpstreamRequest
from . import capabilities, modes
from .capabilities import ModelCapabilities
from .learned_facts import NO_FACTS, LearnedFacts

# Parameters with rules of their own; the others are sent as they are, or dropped.
_SPECIAL_PARAMS = (
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
    """How one target answers one request: decided, and nothing sent yet.

    *request* is the caller's, with the defaults that the gateway adds. *params* are the
    parameters that the endpoint takes, *dropped* the names of those that are not sent.
    If *direct*, the answer of the only call may pass through unchanged. *stops* are the
    stop sequences that the gateway enforces, *max_calls* is the limit of calls.

    It is made with *facts*, which errors have said; after an error also with those of
    this request, named in *replanned*. An answer to it confirms *lessons*: the facts
    that hold for other requests, too.
    """

    provider: Provider
    target: Target
    mode: CompletionMode
    endpoint: Endpoint
    params: ParamMappings
    request: CompletionRequest
    parts: Sequence[Part]
    direct: bool
    max_calls: int
    stops: Sequence[str] = ()
    dropped: Sequence[str] = ()
    warnings: Sequence[str] = ()
    facts: LearnedFacts = NO_FACTS
    lessons: LearnedFacts = NO_FACTS
    replanned: frozenset[str] = frozenset()

    def upstream_request(self, part: Part, target: Target) -> UpstreamRequest:
        """The call for *part*. *target* is the plan's, perhaps with an access token."""
        if self.facts.unversioned and target.base_url:
            # A host that is written with the endpoint's whole path is called there.
            host = target.base_url.rstrip("/") + "/completions"
            target = replace(target, base_url=host)
        return UpstreamRequest(
            self.provider, self.endpoint, target, part.request, self.params
        )

    def shape(self, part: Part) -> PostProcessing:
        """What the gateway does to the answer of the call for *part*."""
        return PostProcessing(
            prompt=part.request.prompt,
            count=part.request.n,
            echo=self.request.echo and "echo" not in self.params,
            stops=self.stops,
            suppress_text=_suppresses_text(self.request, self.endpoint),
            logprobs=part.request.logprobs is not None,
            may_reason=self.mode == CompletionMode.CHAT,
            is_counted=self.endpoint.legacy_shape,
        )


def make_plan(
    provider: Provider,
    target: Target,
    request: CompletionRequest,
    max_calls: int = 4096,
    facts: LearnedFacts = NO_FACTS,
) -> Plan:
    """How *target* answers *request*, in at most *max_calls* calls, by *facts* that
    its upstream's errors have said before.

    Raises InvalidRequest if it cannot.
    """
    model = capabilities.describe_model(request.model, target.model_info)
    mode = modes.choose_mode(provider, target, request, model)
    if facts.only_chats and modes.may_chat_instead(provider, target, request, mode):
        mode = CompletionMode.CHAT
    endpoint = provider.endpoint(mode, request.model)
    planner = Planner(
        provider, target, request, model, mode, endpoint, max_calls, facts
    )
    return replace(planner.plan(), lessons=facts)


def _suppresses_text(request: CompletionRequest, endpoint: Endpoint) -> bool:
    """Whether the caller wants no token, and the endpoint generates at least one."""
    return request.max_tokens == 0 and endpoint.min_tokens > 0


@dataclass(frozen=True, slots=True)
class Planner:
    """Plans one request in one mode of one target."""

    provider: Provider
    target: Target
    request: CompletionRequest
    model: ModelCapabilities
    mode: CompletionMode
    endpoint: Endpoint
    max_calls: int
    facts: LearnedFacts = NO_FACTS

    def plan(self) -> Plan:
        """The plan. Raises UnsupportedParameter or InvalidRequest."""
        request, endpoint = self.request, self.endpoint
        if endpoint.rules:
            endpoint.rules(request)
        params = self._supported_params()
        # The gateway enforces the stop sequences if one of them cannot be sent.
        stops = request.stops
        if stops and "stop" in params and params["stop"].fits(list(stops)):
            stops = ()
        if stops or _suppresses_text(request, endpoint):
            # To cut the text, the gateway has to know where the prompt ends: it adds
            # the echo itself.
            params.pop("echo", None)
        self._check_supported(params)
        sent, dropped = self._split_supported(params)
        max_tokens, warnings = self._choose_max_tokens(params)
        if max_tokens is not None:
            sent["max_tokens"] = max_tokens
            if request.max_tokens is None and max_tokens != NO_LIMIT:
                defaults = {**request.defaults, "max_tokens": max_tokens}
                request = replace(request, defaults=defaults)
        sent |= self._special_params(params)
        direct = self._is_direct(params, stops)
        plan = Plan(
            self.provider,
            self.target,
            self.mode,
            endpoint,
            params,
            request,
            self._split_into_parts(sent, direct),
            direct,
            self.max_calls,
            stops,
            dropped,
            warnings,
            self.facts,
        )
        if endpoint.check:
            for part in plan.parts:
                endpoint.check(plan.upstream_request(part, self.target))
        return plan

    def _supported_params(self) -> dict[str, ParamMapping]:
        """The endpoint's parameters, as far as the model takes them."""
        refused = {*self._params_model_lacks}
        if (self.mode, "stream_options") in self.facts.refused:
            refused.add("stream_options")
        params = {k: v for k, v in self.endpoint.params.items() if k not in refused}
        limit = params.get("max_tokens")
        if limit:
            name = limit.name
            if self.mode == CompletionMode.CHAT and name == "max_tokens":
                name = self.model.max_tokens
            name = self.facts.limit_name(self.mode, name)
            params["max_tokens"] = replace(limit, name=name)
        return params

    @property
    def _params_model_lacks(self) -> Collection[str]:
        """The parameters that the model refuses.

        The table of models describes their chat endpoints; in other modes only what
        the target itself says about its model counts.
        """
        if self.mode == CompletionMode.CHAT:
            return self.model.lacks
        return self.target.model_info.get("lacks") or ()

    # Parameters that the answer would be wrong without

    def _check_supported(self, params: ParamMappings) -> None:
        """Raise UnsupportedParameter for what neither endpoint nor gateway can do."""
        request = self.request
        for prompt in request.prompts:
            if prompt is None and not self.endpoint.takes_null_prompt:
                raise self._unsupported("prompt", "needs a prompt; null is none")
            is_text = prompt is None or isinstance(prompt, str)
            if not is_text and not self.endpoint.takes_token_ids:
                raise self._unsupported("prompt", "takes text, not token ids")
        if request.suffix and "suffix" not in params:
            raise self._unsupported("suffix", "does not fill in before a suffix")
        if request.logprobs is not None:
            if "logprobs" not in params:
                raise self._unsupported("logprobs", "has no log probabilities")
            if not params["logprobs"].fits(request.logprobs):
                limit = params["logprobs"].high
                raise self._unsupported(
                    "logprobs", f"has the alternatives of {limit:g} tokens at most"
                )
        if request.echo and "echo" not in params:
            self._check_echo_by_gateway()
        if request.drawn > request.n and not {"best_of", "logprobs"} & set(params):
            raise self._unsupported("best_of", "has nothing to rank candidates by")

    def _check_echo_by_gateway(self) -> None:
        """The gateway can put a text before the answer, but has no scores for it."""
        if self.request.logprobs is not None:
            if _suppresses_text(self.request, self.endpoint):
                raise self._unsupported(
                    "max_tokens",
                    "generates one token at least, whose score would stand among those "
                    "of the prompt: ask for 1",
                )
            raise self._unsupported(
                "echo",
                "has no log probabilities for the prompt: 'echo' and 'logprobs' cannot "
                "be had together",
            )
        if not all(isinstance(prompt, str) for prompt in self.request.prompts):
            raise self._unsupported("echo", "cannot echo token ids as text")

    def _unsupported(self, param: str, reason: str) -> UnsupportedParameter:
        only_mode = len(self.provider.modes) == 1
        via = "" if only_mode else f", asked via {self.mode},"
        return UnsupportedParameter(
            f"'{param}' is not supported: provider {self.provider.name}{via} {reason}.",
            param,
        )

    # Parameters that are sent or dropped

    def _split_supported(
        self, params: ParamMappings
    ) -> tuple[dict[str, Any], list[str]]:
        """The ordinary parameters that are sent, and the names of those dropped."""
        fields = self.request.params
        dropped = duplicate_params(fields)
        if dropped:
            fields = remove_params(fields, dropped)
        if self.request.is_unlimited:
            # The same as max_tokens says, which is named if it is lost.
            dropped = [n for n in dropped if self.request.params.get(n) != NO_LIMIT]
        sent: dict[str, Any] = {}
        for name, value in fields.items():
            if name in _SPECIAL_PARAMS:
                continue
            if name in params:
                is_supported = params[name].fits(value)
            else:
                # A parameter of no list here may be one of the provider's server.
                is_listed = name in LEGACY_PARAMS or name in self._params_model_lacks
                is_supported = self.endpoint.passes_unknown and not is_listed
            if is_supported:
                sent[name] = value
            elif name not in DEFAULTS or value != DEFAULTS[name]:
                dropped.append(name)
        if self._loses_no_limit and self._default_max_tokens is None:
            dropped.append("max_tokens")
        for first, second in self.endpoint.exclusive_params:
            if first in sent and second in sent:
                # Of two that exclude each other one goes: that with its default value,
                # whose loss changes nothing and needs no mention.
                loser = first if sent[first] == DEFAULTS.get(first) else second
                if sent.pop(loser) != DEFAULTS.get(loser):
                    dropped.append(loser)
        if dropped and self.target.strict_params:
            raise self._unsupported(
                dropped[0], "has no such parameter, or not this value"
            )
        return sent, dropped

    @property
    def _loses_no_limit(self) -> bool:
        """Whether the caller wants no limit of tokens, and the target has one.

        Without a max_tokens a chat goes on to its end; a completion has a default, 16
        on most servers.
        """
        return (
            self.request.is_unlimited
            and self.mode != CompletionMode.CHAT
            and not self.endpoint.takes_no_limit
        )

    @property
    def _default_max_tokens(self) -> int | None:
        """What is sent if the caller sets no limit. Keys that are limited need one."""
        default = self.endpoint.default_max_tokens or self.target.default_max_tokens
        if default is None and self._loses_no_limit:
            return self.request.default_max_tokens
        return default

    def _choose_max_tokens(self, params: ParamMappings) -> tuple[int | None, list[str]]:
        """The max_tokens to send, if any; and a warning if it had to be raised."""
        if "max_tokens" not in params and self.target.default_max_tokens is not None:
            # A default is set where a key is limited: usage must have an upper bound.
            raise self._unsupported(
                "max_tokens",
                "would not hear of it, and a limit of a key on tokens or money cannot "
                "be kept without",
            )
        if _suppresses_text(self.request, self.endpoint):
            return self.endpoint.min_tokens, []
        limit = self.request.max_tokens
        if limit is None:
            limit = self._default_max_tokens
        if limit is None and self.request.is_unlimited and self.endpoint.takes_no_limit:
            return NO_LIMIT, []
        floor = self.model.token_floor
        if limit is None or self.mode != CompletionMode.CHAT or limit >= floor:
            return limit, []
        warning = f"max_tokens raised from {limit} to {floor}: this model reasons first"
        return floor, [warning]

    def _special_params(self, params: ParamMappings) -> dict[str, Any]:
        """The parameters with rules of their own, as far as they are sent."""
        fields = self.request.params
        sent: dict[str, Any] = {}
        if self.request.stops and "stop" in params:
            stop = params["stop"]
            if stop.fits(list(self.request.stops)):
                sent["stop"] = fields["stop"]
            else:
                # As many as the endpoint takes: each may end the generation early.
                valid = filter(stop.takes, dict.fromkeys(self.request.stops))
                first = list(valid)[: stop.max_items]
                if first:
                    sent["stop"] = first
        for name in ("echo", "logprobs", "suffix"):
            if name in fields and name in params:
                sent[name] = fields[name]
        # Splitting into calls reads these, whether the endpoint takes them or not.
        for name in ("best_of", "n", "stream", "stream_options"):
            if name in fields:
                sent[name] = fields[name]
        return sent

    # The calls

    def _is_direct(self, params: ParamMappings, stops: Sequence[str]) -> bool:
        """Whether one call answers the request, in the form that the caller gets."""
        request, endpoint = self.request, self.endpoint
        one_call = len(request.prompts) == 1 or endpoint.takes_batches
        enough_choices = request.n <= endpoint.choices_per_call
        ranks = request.drawn > request.n and "best_of" not in params
        echoes = request.echo and "echo" not in params
        changes_text = stops or echoes or _suppresses_text(request, endpoint)
        return (
            endpoint.legacy_shape
            and one_call
            and enough_choices
            and not (ranks or changes_text)
        )

    def _split_into_parts(self, sent: dict[str, Any], direct: bool) -> Sequence[Part]:
        """One part if *direct*; else one for each prompt and choices of one call."""
        if direct:
            return (Part(replace(self.request, params=sent), 0, 0),)
        sent.pop("stream_options", None)
        if sent.pop("stream", False):
            # The merged usage is the sum of all calls', so each has to report its own.
            sent |= {"stream": True, "stream_options": {"include_usage": True}}
        prompts, drawn = len(self.request.prompts), self.request.drawn
        # Checked before the parts exist: a million prompts must not take their memory.
        # Nor may n alone cause thousands of calls, each of many choices.
        calls = prompts * -(-drawn // self.endpoint.choices_per_call)
        if max(calls, drawn) > self.max_calls:
            raise InvalidRequest(
                f"Too many parallel completions requested. You submitted {prompts} "
                f"prompts for {drawn} completions each, but this provider generates at "
                f"most {self.max_calls} for one request.",
                param="prompt",
                code="too_many_completions",
            )
        whole = replace(self.request, params=sent)
        return batch.split(whole, self.endpoint.choices_per_call)

"""Plans a request again after its upstream has refused the form of it.

Four refusals say that another form would be answered: the model only chats, it takes
the limit of tokens by its other name, the endpoint does not know `stream_options`, or
the custom host has no version in its paths. What a refusal says about the deployment,
and not only about this request, is remembered: see learned_facts.py.
"""

import re
from dataclasses import replace
from typing import NamedTuple

from ..core.request import CompletionRequest
from ..core.routing import CompletionMode
from ..errors import GatewayError, UpstreamStatus
from . import capabilities, learned_facts, modes
from .learned_facts import LearnedFacts
from .plan import Plan, Planner

# With these an upstream refuses a request whose form it does not understand.
_STATUS_CODES = (400, 404, 405, 422)

# The words that name a refused thing in an error.
_LIMIT_NAMES = re.compile(r"max_(completion_)?tokens")
_STREAM_OPTIONS = re.compile(r"stream_options")
_NOTHING = re.compile(r"(?!)")


def replan_after_error(plan: Plan, error: GatewayError) -> Plan | None:
    """Another plan, if *error* says that it would work; for each refusal once."""
    if not isinstance(error, UpstreamStatus):
        return None
    if error.status not in _STATUS_CODES:
        return None
    refusal = _refusal(plan, error)
    if refusal is None or refusal.topic in plan.replanned:
        return None
    request, target, mode = plan.request, plan.target, plan.mode
    if refusal.topic == "chat":
        mode = CompletionMode.CHAT
    facts = refusal.added_to(plan.facts, plan.mode)
    lessons = plan.lessons
    if refusal.is_general(request):
        lessons = refusal.added_to(lessons, plan.mode)
    planner = Planner(
        plan.provider,
        target,
        request,
        capabilities.describe_model(request.model, target.model_info),
        mode,
        plan.provider.endpoint(mode, request.model),
        plan.max_calls,
        facts,
    )
    return replace(
        planner.plan(),
        lessons=lessons,
        replanned=plan.replanned | {refusal.topic},
    )


class _Refusal(NamedTuple):
    """What an upstream does not take: a *topic* with the words that name it in errors,
    and the parameter's name upstream, if it is one.
    """

    topic: str
    words: re.Pattern[str]
    param: str = ""

    def added_to(self, facts: LearnedFacts, mode: CompletionMode) -> LearnedFacts:
        if self.topic == "chat":
            return replace(facts, only_chats=True)
        if self.topic == "path":
            return replace(facts, unversioned=True)
        return facts.refusing(mode, self.param)

    def is_general(self, request: CompletionRequest) -> bool:
        """Whether other requests would be refused, too, for all that is known."""
        # An extension in there may be what the endpoint does not know.
        options = request.params.get("stream_options") or {}
        if self.topic == "stream_options" and set(options) - {"include_usage"}:
            return False
        return not learned_facts.may_quote(request, self.words)


def _refusal(plan: Plan, error: UpstreamStatus) -> _Refusal | None:
    """What *error* says that the upstream of *plan* does not take, if it does."""
    request, limit = plan.request, plan.params.get("max_tokens")
    if modes.may_chat_instead(plan.provider, plan.target, request, plan.mode):
        if modes.is_chat_only_error(error.message):
            return _Refusal("chat", modes.CHAT_ONLY)
    if limit and limit.name in learned_facts.OTHER_LIMIT:
        if learned_facts.refuses_parameter(error, limit.name):
            return _Refusal("max_tokens", _LIMIT_NAMES, limit.name)
    if request.stream and "stream_options" in plan.params:
        if "stream_options" in (error.param or "") + error.message:
            return _Refusal("stream_options", _STREAM_OPTIONS, "stream_options")
    if learned_facts.is_unknown_path(error) and _has_added_version(plan):
        return _Refusal("path", _NOTHING)
    return None


def _has_added_version(plan: Plan) -> bool:
    """Whether the URL called has a version that its custom host was written without."""
    part, facts = plan.parts[0], replace(plan.facts, unversioned=True)
    urls = {
        plan.endpoint.call(each.upstream_request(part, plan.target)).url
        for each in (plan, replace(plan, facts=facts))
    }
    return len(urls) == 2

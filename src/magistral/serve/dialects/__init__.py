"""The dialects: each reads a request into an Ask, and writes the events of its completions."""

from __future__ import annotations

from magistral.registry import Registry
from magistral.serve.dialects.anthropic_messages import AnthropicMessages
from magistral.serve.dialects.base import Dialect, Renderer, Reply, Sse
from magistral.serve.dialects.mistral_chat import MistralChat
from magistral.serve.dialects.openai_chat import OpenAIChat
from magistral.serve.dialects.openai_completions import OpenAICompletions
from magistral.serve.dialects.openai_responses import OpenAIResponses

DIALECTS: Registry[Dialect] = Registry("dialect")
for _dialect in (OpenAIChat(), OpenAICompletions(), OpenAIResponses(), MistralChat(), AnthropicMessages()):
    DIALECTS.register(_dialect.name)(_dialect)

__all__ = ["DIALECTS", "Dialect", "Renderer", "Reply", "Sse"]

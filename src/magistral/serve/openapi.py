"""The server's own description of its API, made of the models by which requests are read."""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel

from magistral import __version__
from magistral.serve.dialects.anthropic_messages import MessagesFields
from magistral.serve.dialects.chat_fields import ChatFields
from magistral.serve.dialects.mistral_chat import MistralFields
from magistral.serve.dialects.openai_completions import CompletionFields
from magistral.serve.dialects.openai_responses import ResponseFields

ASKING: dict[str, tuple[str, type[BaseModel], str]] = {
    "/v1/chat/completions": ("openai", ChatFields, "A chat, as OpenAI's API has it; Mistral's clients are known by their name."),
    "/openai/v1/chat/completions": ("openai", ChatFields, "A chat, as OpenAI's API has it."),
    "/mistral/v1/chat/completions": ("mistral", MistralFields, "A chat, as Mistral's API has it."),
    "/v1/completions": ("completions", CompletionFields, "A plain continuation: no template, no phases."),
    "/v1/responses": ("responses", ResponseFields, "OpenAI's responses, without a store."),
    "/v1/messages": ("anthropic", MessagesFields, "Anthropic's messages."),
    "/v1/messages/count_tokens": ("anthropic", MessagesFields, "Tokens of a prompt."),
}
PLAIN = {
    "/health": ("get", "Whether the process lives."),
    "/ready": ("get", "Whether every model can serve: 200 or 503."),
    "/metrics": ("get", "Counters for Prometheus."),
    "/v1/models": ("get", "What is served."),
    "/v1/usage": ("get", "What the asking key used, by day and model, and what it would have cost."),
    "/v1/tokenize": ("post", "Tokens of a text, or of messages."),
    "/v1/detokenize": ("post", "Text of tokens."),
}
STEER = {
    "/v1/requests/{id}": ("delete", "Cancel a request that runs."),
    "/v1/requests/{id}/answer_now": ("post", "Close its thinking, so that it answers."),
}
_OBJECT = {"type": "object"}


def openapi() -> dict[str, Any]:
    schemas: dict[str, Any] = {}
    paths: dict[str, Any] = {}
    for path, (dialect, model, summary) in ASKING.items():
        _add_schemas(schemas, dialect, model)
        body = {"required": True, "content": {"application/json": {"schema": {"$ref": _ref(dialect, model.__name__)}}}}
        paths[path] = {"post": {"summary": summary, "tags": [dialect], "requestBody": body, "responses": _responses(stream=True)}}
    for path, (method, summary) in PLAIN.items():
        paths[path] = {method: {"summary": summary, "tags": ["server"], "responses": _responses()}}
        if method == "post":
            paths[path][method]["requestBody"] = {"required": True, "content": {"application/json": {"schema": _OBJECT}}}
    name = {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}
    for path, (method, summary) in STEER.items():
        paths[path] = {method: {"summary": summary, "tags": ["server"], "parameters": [name], "responses": _responses()}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "open-magistral", "version": __version__},
        "security": [{"bearer": []}, {"header": []}, {}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "header": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
    }


def _ref(dialect: str, name: str) -> str:
    return f"#/components/schemas/{dialect}.{name}"


def _add_schemas(schemas: dict[str, Any], dialect: str, model: type[BaseModel]) -> None:
    """A model and those that it is made of; dialects have models of one name."""
    schema = model.model_json_schema()
    text = json.dumps(schema).replace('"#/$defs/', f'"{_ref(dialect, "")}')
    named = json.loads(text)
    parts = named.pop("$defs", {})
    schemas[f"{dialect}.{model.__name__}"] = named
    schemas.update({f"{dialect}.{name}": part for name, part in parts.items()})


def _responses(*, stream: bool = False) -> dict[str, Any]:
    content: dict[str, Any] = {"application/json": {"schema": _OBJECT}}
    if stream:
        content["text/event-stream"] = {"schema": {"type": "string"}}
    refused = {"content": {"application/json": {"schema": _OBJECT}}}
    said = {
        "400": "The request is wrong.",
        "401": "No such key.",
        "404": "No such thing.",
        "413": "Too large.",
        "415": "Not JSON.",
        "422": "A field is wrong (Mistral's form).",
        "429": "A limit is reached; see Retry-After.",
        "503": "Not for now; see Retry-After.",
        "529": "Not for now (Anthropic's form).",
    }
    return {
        "200": {"description": "Done.", "content": content},
        **{code: {"description": d, **refused} for code, d in said.items()},
    }

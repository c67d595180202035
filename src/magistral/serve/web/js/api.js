// Everything the page asks of the server.

let key = sessionStorage.getItem("key") ?? "";
let askForKey = async () => "";

export function onKeyNeeded(ask) {
  askForKey = ask;
}

export class Failure extends Error {}

async function call(path, options = {}) {
  for (let tries = 0; ; tries++) {
    const headers = { ...options.headers, ...(key ? { authorization: `Bearer ${key}` } : {}) };
    const response = await fetch(path, { ...options, headers });
    if (response.ok) return response;
    if (response.status === 401 && tries < 3) {
      key = await askForKey();
      sessionStorage.setItem("key", key);
      continue;
    }
    throw new Failure(await reason(response));
  }
}

async function reason(response) {
  try {
    const body = await response.json();
    const wait = response.headers.get("retry-after");
    return body.error.message + (wait ? ` (${wait} s)` : "");
  } catch {
    return `${response.status} ${response.statusText}`;
  }
}

const json = (body, method = "POST") => ({ method, body: JSON.stringify(body), headers: { "content-type": "application/json" } });

export const models = async () => (await (await call("/v1/models")).json()).data;
export const conversations = async (query) => (await (await call(`/api/conversations?q=${encodeURIComponent(query)}`)).json()).data;
export const conversation = async (id) => (await call(`/api/conversations/${id}`)).json();
export const keep = async (id, body) => call(`/api/conversations/${id}`, json(body, "PUT"));
export const forget = async (id) => call(`/api/conversations/${id}`, { method: "DELETE" });
export const answerNow = async (id) => call(`/v1/requests/${id}/answer_now`, { method: "POST" });
export const runs = async () => (await call("/api/runs")).json(); // { data, folder }
export const run = async (name) => (await call(`/api/runs/${encodeURIComponent(name)}`)).json();
export const groups = async (name, step) => (await (await call(`/api/runs/${encodeURIComponent(name)}/groups?step=${step}`)).json()).data;

// Ask, and call `on.started(id)`, then `on.chunk(data)` for each event; ends when the answer does or `signal` aborts.
export async function ask(body, signal, on) {
  const response = await call("/openai/v1/chat/completions", {
    ...json({ ...body, stream: true, stream_options: { include_usage: true } }),
    signal,
  });
  on.started(response.headers.get("x-magistral-request"));
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = (held + value).split("\n\n");
    held = parts.pop();
    for (const part of parts) {
      if (!part.startsWith("data: ") || part === "data: [DONE]") continue;
      const data = JSON.parse(part.slice(6));
      if (data.error) throw new Failure(data.error.message);
      on.chunk(data);
    }
  }
}

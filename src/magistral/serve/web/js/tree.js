// A conversation: a tree of questions and answers. A branch is a child more of the same parent.

export class Tree {
  constructor(kept = {}) {
    this.id = kept.id ?? newId();
    this.title = kept.title ?? "";
    this.nodes = new Map((kept.nodes ?? []).map((node) => [node.id, node]));
    this.leaf = kept.leaf ?? null;
  }

  add(parent, role, text) {
    const node = { id: newId(), parent, role, text, thinking: "", about: {} };
    this.nodes.set(node.id, node);
    this.leaf = node.id;
    this.title ||= text.trim().slice(0, 60);
    return node;
  }

  path(leaf = this.leaf) {
    const path = [];
    for (let node = this.nodes.get(leaf); node; node = this.nodes.get(node.parent)) path.unshift(node);
    return path;
  }

  siblings(node) {
    return [...this.nodes.values()].filter((other) => other.parent === node.parent && other.role === node.role);
  }

  // Look at another branch, down to where it ends.
  turnTo(node) {
    let end = node;
    for (let next = end; next; next = [...this.nodes.values()].filter((n) => n.parent === end.id).pop()) end = next;
    this.leaf = end.id;
  }

  // What the model is sent: questions and answers without their thinking, which no served model was trained to read back.
  messages(leaf) {
    return this.path(leaf).map(({ role, text }) => ({ role, content: text }));
  }

  body() {
    return { title: this.title, nodes: [...this.nodes.values()], leaf: this.leaf };
  }
}

export function newId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(9)), (b) => b.toString(36).padStart(2, "0")).join("");
}

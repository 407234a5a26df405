// Shows /openapi.json. Text is only ever set as text, so nothing in it can become markup.

const element = (name, text, ...children) => {
  const made = document.createElement(name);
  if (text !== null) made.textContent = text;
  made.append(...children);
  return made;
};

const resolve = (schema, all) => (schema?.$ref ? all[schema.$ref.split("/").at(-1)] : schema) ?? {};

const typeOf = (schema, all) => {
  if (!schema) return "";
  if (schema.$ref) return schema.$ref.split("/").at(-1);
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" | ");
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.anyOf) return schema.anyOf.map((one) => typeOf(one, all)).join(" | ");
  if (schema.type === "array") return `${typeOf(schema.items, all)}[]`;
  return schema.type ?? "any";
};

const table = (rows, headings) => {
  const head = element("tr", null, ...headings.map((text) => element("th", text)));
  const lines = rows.map((row) => element("tr", null, ...row.map((text) => element("td", text ?? ""))));
  return element("table", null, element("thead", null, head), element("tbody", null, ...lines));
};

const fields = (schema, all) => {
  const known = resolve(schema, all);
  const required = new Set(known.required ?? []);
  const rows = Object.entries(known.properties ?? {}).map(([name, field]) => [
    name,
    typeOf(field, all),
    required.has(name) ? "required" : field.default === undefined ? "" : JSON.stringify(field.default),
    field.description,
  ]);
  return table(rows, ["field", "type", "default", ""]);
};

const curl = (method, path, operation) => {
  const target = `${location.origin}${path}`;
  if (!operation.requestBody) return `curl -X ${method} ${target}`;
  const body = '{"prompt": "a red circle on a white background", "model": "flux2-tiny"}';
  return `curl -X ${method} ${target} \\\n  -H "Content-Type: application/json" \\\n  -d '${body}'`;
};

const replies = (operation, all) =>
  Object.entries(operation.responses).map(([status, reply]) => {
    const [kind, content] = Object.entries(reply.content ?? {})[0] ?? ["", {}];
    return [status, reply.description, content.schema ? typeOf(content.schema, all) : kind];
  });

const show = (path, method, operation, all) => {
  const body = element("div", null);
  body.className = "body";
  if (operation.parameters.length) {
    const rows = operation.parameters.map((one) => [one.name, one.in, typeOf(one.schema, all), one.description ?? one.schema.description]);
    body.append(element("h3", "Parameters"), table(rows, ["name", "in", "type", ""]));
  }
  const sent = operation.requestBody?.content["application/json"]?.schema;
  if (sent) body.append(element("h3", "Body"), fields(sent, all));
  const answered = operation.responses["200"]?.content?.["application/json"]?.schema;
  if (answered) body.append(element("h3", "Reply"), fields(answered, all));
  body.append(element("h3", "Statuses"), table(replies(operation, all), ["status", "", "content"]));
  body.append(element("h3", "Try it"), element("pre", curl(method.toUpperCase(), path, operation)));
  const verb = element("span", method.toUpperCase());
  verb.className = "method";
  const title = element("summary", null, element("code", null, verb, path), element("span", operation.summary));
  return element("details", null, title, body);
};

const main = async () => {
  const api = await (await fetch("/openapi.json")).json();
  const all = api.components.schemas;
  const groups = new Map();
  for (const [path, operations] of Object.entries(api.paths)) {
    for (const [method, operation] of Object.entries(operations)) {
      const tag = operation.tags[0];
      if (!groups.has(tag)) groups.set(tag, element("section", null, element("h2", tag)));
      groups.get(tag).append(show(path, method, operation, all));
    }
  }
  document.querySelector("#endpoints").append(...groups.values());
  document.querySelector("#about").textContent = `Version ${api.info.version}. OpenAPI ${api.openapi} at /openapi.json.`;
};

main().catch((error) => {
  document.querySelector("#about").textContent = `The description cannot be read: ${error.message}`;
});

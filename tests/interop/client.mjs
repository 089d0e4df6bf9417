// The official Node SDK behind a line protocol: one JSON command a line in,
// one JSON answer a line out. client.py is its twin; drive.py talks to both.

import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";

// The package lies where run.sh installed it, not beside this file.
const ngrok = createRequire(process.argv[2])("@ngrok/ngrok");

let session = null;
const listeners = new Map();

// `{"file": PATH}` stands for the bytes of a file.
const argument = (value) => (value?.file ? readFileSync(value.file) : value);

const commands = {
  async connect({ server, ca, token }) {
    const builder = new ngrok.SessionBuilder();
    builder.serverAddr(server).rootCas(ca).authtoken(token).metadata("interop");
    session = await builder.connect();
    return {};
  },
  async listen({ proto, to, domain, calls = [] }) {
    const builder = session[`${proto}Endpoint`]();
    if (domain) builder.domain(domain);
    for (const [name, values] of calls) {
      builder[name.replace(/_(.)/g, (_, letter) => letter.toUpperCase())](...values.map(argument));
    }
    builder.metadata("interop");
    const listener = await builder.listen();
    listener.forward(to);
    listeners.set(listener.url(), listener);
    return { url: listener.url(), id: listener.id() };
  },
  async close({ url }) {
    const listener = listeners.get(url);
    listeners.delete(url);
    await listener.close();
    return {};
  },
  async bye() {
    await session.close();
    return { bye: true };
  },
  // The SDK's one-call form, with a session of its own.
  async forward({ server, ca, token, to }) {
    const listener = await ngrok.forward({
      addr: to,
      authtoken: token,
      server_addr: server,
      root_cas: ca,
      force_new_session: true,
    });
    listeners.set(listener.url(), listener);
    return { url: listener.url() };
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const { do: name, ...rest } = JSON.parse(line);
  let answer;
  try {
    answer = await commands[name](rest);
  } catch (error) {
    // What the SDK throws is what we test.
    answer = { error: String(error.message ?? error) + " " + String(error.errorCode ?? "") };
  }
  console.log(JSON.stringify(answer));
  if (answer.bye) process.exit(0);
}
process.exit(0);

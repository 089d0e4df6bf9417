"""The official Python SDK behind a line protocol: one JSON command a line in,
one JSON answer a line out. client.mjs is its twin; drive.py talks to both."""

import asyncio
import json
import sys

import ngrok

session = None
listeners = {}


async def connect(server, ca, token):
    global session
    builder = ngrok.SessionBuilder().server_addr(server).root_cas(ca).authtoken(token)
    session = await builder.metadata("interop").connect()
    return {}


def value(argument):
    """An argument of a builder; `{"file": PATH}` stands for the bytes of a file."""
    if isinstance(argument, dict):
        with open(argument["file"], "rb") as file:
            return bytearray(file.read())
    return argument


async def listen(proto, to, domain=None, calls=()):
    builder = getattr(session, f"{proto}_endpoint")()
    if domain:
        builder = builder.domain(domain)
    for name, arguments in calls:
        builder = getattr(builder, name)(*map(value, arguments))
    listener = await builder.metadata("interop").listen()
    listener.forward(to)
    listeners[listener.url()] = listener
    return {"url": listener.url(), "id": listener.id()}


async def close(url):
    await listeners.pop(url).close()
    return {}


async def bye():
    await session.close()
    return {"bye": True}


async def forward(server, ca, token, to):
    """The SDK's one-call form, with a session of its own."""
    listener = await ngrok.forward(
        to,
        authtoken=token,
        server_addr=server,
        root_cas=ca,
        force_new_session=True,
    )
    listeners[listener.url()] = listener
    return {"url": listener.url()}


COMMANDS = {"connect": connect, "listen": listen, "close": close, "bye": bye, "forward": forward}


async def main():
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        command = json.loads(line)
        try:
            answer = await COMMANDS[command.pop("do")](**command)
        except Exception as error:  # what the SDK raises is what we test
            answer = {"error": " ".join(str(part) for part in error.args) or repr(error)}
        print(json.dumps(answer), flush=True)
        if answer.get("bye"):
            return


asyncio.run(main())

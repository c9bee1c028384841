"""The demo: a small shop with an assistant, so that a newcomer has something to look at.

In:  a server's address and a token.   Out: real telemetry from the unmodified Logfire SDK: web requests with nested
spans and exceptions, logs, metrics, agent runs (pydantic-ai on its TestModel: no network, no key), online evaluations
and costs. Repeatable but for the times: chance comes from a seed.
"""

import asyncio
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from core.errors import Refused, Unavailable

try:
    import httpx
    import logfire
    from fastapi import FastAPI, HTTPException
    from pydantic_ai import Agent
    from pydantic_ai.models.test import TestModel
    from pydantic_evals.evaluators import Evaluator, EvaluatorContext
    from pydantic_evals.online import evaluate, wait_for_evaluations
except ImportError as error:
    raise Refused(f"The demo needs more packages ({error.name}): pip install 'tailrace-server[demo]'") from error

SERVICE = "demo-shop"
SEED = 7
PAUSE_S = 0.2
"""Least time between two visits of the shop."""
LOOK_S = 5.0
"""How long the server may take to answer at the start."""
ITEMS = ("kettle", "lamp", "chair", "café table")
QUESTIONS = ("Where is my order?", "Do you deliver on Saturdays?", "Which lamp fits the chair?")
USD_PER_INPUT_TOKEN, USD_PER_OUTPUT_TOKEN = 0.25e-6, 2e-6


@dataclass
class IsPolite(Evaluator[str, str]):
    """Whether an answer says thanks: an assertion."""

    def evaluate(self, ctx: EvaluatorContext[str, str]) -> bool:
        """True when it does."""
        return "thank" in ctx.output.lower()


@dataclass
class Brevity(Evaluator[str, str]):
    """How short an answer is: a score from 0 to 1."""

    def evaluate(self, ctx: EvaluatorContext[str, str]) -> float:
        """1 for an empty answer, 0 from 200 characters on."""
        return max(0.0, 1 - len(ctx.output) / 200)


def run_demo(base_url: str, token: str, *, seconds: float) -> int:
    """Send telemetry for so many seconds; the number of visits to the shop.

    Raises Unavailable when there is no server, Refused for a bad token.
    """
    _check(base_url, token)
    logfire.configure(
        service_name=SERVICE, service_version="1.0.0", environment="demo", token=token, console=False,
        inspect_arguments=False, advanced=logfire.AdvancedOptions(base_url=base_url),
    )  # fmt: skip
    logfire.instrument_pydantic_ai()
    visits = asyncio.run(_visit(seconds))
    logfire.force_flush()
    return visits


def _check(base_url: str, token: str) -> None:
    request = urllib.request.Request(f"{base_url}/v1/info", headers={"authorization": token})  # noqa: S310  # our own server
    try:
        urllib.request.urlopen(request, timeout=LOOK_S).close()  # noqa: S310  # the same
    except urllib.error.HTTPError as error:
        raise Refused(f"{base_url} does not take this token: {error.read().decode()[:200]}") from error
    except OSError as error:
        raise Unavailable(f"Nobody answers at {base_url}; is `tailrace serve` running?") from error


async def _visit(seconds: float) -> int:
    random = Random(SEED)  # noqa: S311  # a repeatable demo
    shop = _shop(random)
    orders = logfire.metric_counter("shop.orders", unit="{order}", description="Orders placed")
    stock = logfire.metric_gauge("shop.stock", unit="{item}", description="Items left")
    latency = logfire.metric_histogram("shop.visit.duration", unit="s", description="How long a visit takes")
    end, visits = time.monotonic() + seconds, 0
    async with httpx.AsyncClient(transport=httpx.ASGITransport(shop, raise_app_exceptions=False)) as browser:
        while time.monotonic() < end:
            started = time.monotonic()
            item = random.choice(ITEMS)
            await browser.get(f"http://shop.example/items/{item}", params={"ref": "front"})
            if random.random() < 0.5:
                await browser.post(f"http://shop.example/orders/{item}")
                orders.add(1, {"item": item})
            if random.random() < 0.4:
                await browser.get("http://shop.example/ask", params={"question": random.choice(QUESTIONS)})
            stock.set(random.randrange(100), {"item": item})
            latency.record(time.monotonic() - started)
            visits += 1
            await asyncio.sleep(PAUSE_S)
    await wait_for_evaluations()
    return visits


def _shop(random: Random) -> FastAPI:
    """The shop's web service."""
    shop = FastAPI()
    logfire.instrument_fastapi(shop)
    answer = _assistant(random)

    @shop.get("/items/{item}")
    async def show(item: str) -> dict[str, str]:
        with logfire.span("load {item}", item=item, _tags=["catalog"]):
            await asyncio.sleep(random.expovariate(100))
            logfire.debug("cache miss for {item}", item=item)
        if random.random() < 0.1:
            raise HTTPException(404, f"There is no {item}")
        return {"item": item}

    @shop.post("/orders/{item}")
    async def order(item: str) -> dict[str, int]:
        with logfire.span("order {item}", item=item, cart={"items": [item], "total": random.randrange(10, 99)}):
            with logfire.span("reserve stock"):
                await asyncio.sleep(random.expovariate(200))
            with logfire.span("charge card"):
                if random.random() < 0.2:
                    raise TimeoutError("the payment provider did not answer")
            if random.random() < 0.2:
                logfire.warn("stock of {item} is low", item=item)
            return {"order": random.randrange(10_000)}

    @shop.get("/ask")
    async def ask(question: str) -> str:
        return await answer(question)

    return shop


def _assistant(random: Random) -> Callable[[str], "asyncio.Future[str]"]:
    """The shop's assistant: an agent on a model that needs no network, judged by two evaluators."""
    model = TestModel(custom_output_text="Thank you for asking; it is on its way.")
    agent = Agent(model, name="shop-assistant", instructions="Answer in one sentence.")

    @agent.tool_plain
    def order_status(order: int) -> str:
        """Where an order is."""
        return f"Order {order} is on its way."

    @evaluate(IsPolite(), Brevity())
    async def answer(question: str) -> str:
        result = await agent.run(question)
        _bill(random)
        return result.output

    return answer  # pyright: ignore[reportReturnType]  # a coroutine function; the decorator keeps its type loosely


def _bill(random: Random) -> None:
    """A model call with tokens and cost, as a paid model reports it."""
    input_tokens, output_tokens = random.randrange(200, 2_000), random.randrange(20, 300)
    cost = input_tokens * USD_PER_INPUT_TOKEN + output_tokens * USD_PER_OUTPUT_TOKEN
    attributes = {
        "gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "gpt-5-mini",
        "gen_ai.response.model": "gpt-5-mini-2026-08-07", "gen_ai.usage.input_tokens": input_tokens,
        "gen_ai.usage.output_tokens": output_tokens, "operation.cost": cost,
    }  # fmt: skip
    with logfire.span("chat gpt-5-mini") as span:
        span.set_attributes(attributes)

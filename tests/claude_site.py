"""The Messages and Message Batches APIs, answered by a table: section text -> pairs."""

import json
import re

from web_server import Answer, answer

KEY = "sk-ant-test-of-ours"


def install(site, pairs_of):
    """`pairs_of(section) -> [(question, answer)]`, or a tree that goes into the tool as it is."""
    batches = {}

    def messages(query, path):
        return message(query, pairs_of)

    def create(query, path):
        number = f"msgbatch_{len(batches) + 1}"
        batches[number] = {"requests": query["requests"], "looks": 0}
        return batch(site, number, "in_progress")

    def look(query, path):
        number = path.split("/")[4]
        if number not in batches:
            return error(404, "not_found_error", "no such batch")
        if path.endswith("/results"):
            return answer("".join(results(batches[number]["requests"], pairs_of)))
        batches[number]["looks"] += 1
        return batch(site, number, "ended" if batches[number]["looks"] > 1 else "in_progress")

    site.route("/v1/messages", messages)
    site.route("/v1/messages/batches", create)
    site.route("/v1/messages/batches/", look)
    return batches


def message(query, pairs_of):
    asked = query["messages"][0]["content"]
    section = re.search(r"<section>\n(.*)\n</section>", asked, re.DOTALL)[1]
    assert query["tool_choice"] == {"type": "tool", "name": query["tools"][0]["name"]}
    found = pairs_of(section)
    if isinstance(found, list):
        found = {"pairs": [{"question": q, "answer": a} for q, a in found]}
    tool = {"type": "tool_use", "id": "toolu_1", "name": "record_pairs", "input": found}
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": query["model"],
        "content": [{"type": "text", "text": "Here they are."}, tool],
        "stop_reason": "tool_use",
        "stop_sequence": None,
        "usage": {"input_tokens": 1000, "output_tokens": 200},
    }


def batch(site, number, status):
    counts = dict.fromkeys(("processing", "succeeded", "errored", "canceled", "expired"), 0)
    ended = f"{site.url}/v1/messages/batches/{number}/results" if status == "ended" else None
    return {
        "id": number,
        "type": "message_batch",
        "processing_status": status,
        "request_counts": counts,
        "created_at": "2026-01-01T00:00:00Z",
        "expires_at": "2026-01-02T00:00:00Z",
        "ended_at": None,
        "archived_at": None,
        "cancel_initiated_at": None,
        "results_url": ended,
    }


def results(requests, pairs_of):
    """In another order than asked; the first one fails."""
    for index, request in reversed(list(enumerate(requests))):
        assert re.fullmatch("[a-zA-Z0-9_-]{1,64}", request["custom_id"])
        result = {"type": "succeeded", "message": message(request["params"], pairs_of)}
        if index == 0:
            failed = {"type": "error", "error": {"type": "api_error", "message": "overloaded"}}
            result = {"type": "errored", "error": failed}
        yield json.dumps({"custom_id": request["custom_id"], "result": result}) + "\n"


def error(status, kind, words, **more):
    tree = {"type": "error", "error": {"type": kind, "message": words}}
    return Answer(json.dumps(tree).encode(), status=status, **more)

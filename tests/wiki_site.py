"""A small encyclopaedia in the shapes of the MediaWiki action API and the pageviews API."""

import re
from urllib.parse import quote

from web_server import answer

PAGE_SIZE = 2  # members and categories in one part of an answer

CATEGORIES = {
    "Physics": ["Force", "Mass", "Atom", "Category:Optics", "Talk:Force"],
    "Optics": ["Lens", "Mirror", "Prism", "Category:Physics", "Category:Deep"],
    "Deep": ["Abyss"],
    "Biology": ["Cell", "Atom", "Looking glass", "Mercury", "Ghost", "Blank"],
}
VIEWS = {"Force": 9000, "Mass": 400, "Atom": 7000, "Lens": 100, "Mirror": 50, "Cell": 8000}
REDIRECTS = {"Looking glass": "Mirror"}
TITLES = ["Force", "Mass", "Atom", "Lens", "Mirror", "Prism", "Abyss", "Cell", "Mercury", "Blank"]


def install(site):
    site.route("/w/api.php", lambda query, path: action_api(query))
    site.route("/views/", views_api)
    return {"site": site.url, "views_api": f"{site.url}/views"}


def action_api(query):
    assert query["format"] == "json"
    assert query["maxlag"] == "5"
    if query.get("meta") == "siteinfo":
        url = "https://creativecommons.org/licenses/by-sa/4.0/deed.en"
        words = "Creative Commons Attribution-Share Alike 4.0"
        return {"batchcomplete": True, "query": {"rightsinfo": {"url": url, "text": words}}}
    if query.get("list") == "categorymembers":
        return members(query)
    return page(query)


def members(query):
    category = query["cmtitle"].removeprefix("Category:")
    names = CATEGORIES.get(category, [])
    start = int(query.get("cmcontinue", "page|0").partition("|")[2])
    rows = []
    for name in names[start : start + PAGE_SIZE]:
        space = {"Category": 14, "Talk": 1}.get(name.partition(":")[0], 0)
        rows.append({"ns": space, "title": name})
    found = {"query": {"categorymembers": rows}}
    if start + PAGE_SIZE < len(names):
        found["continue"] = {"cmcontinue": f"page|{start + PAGE_SIZE}", "continue": "-||"}
    else:
        found["batchcomplete"] = True
    return found


def page(query):
    asked = query["titles"]
    title = REDIRECTS.get(asked, asked)
    if title.startswith("fr:"):
        interwiki = [{"title": title, "iw": "fr"}]
        return {"batchcomplete": True, "query": {"interwiki": interwiki}}
    if title not in TITLES:
        return {"batchcomplete": True, "query": {"pages": [{"title": title, "missing": True}]}}
    number = TITLES.index(title) + 1
    row = {"pageid": number, "ns": 0, "title": title}
    row["revisions"] = [{"revid": 1000 + number, "parentid": 900 + number}]
    second = query.get("clcontinue") == f"{number}|Second"
    row["categories"] = [{"ns": 14, "title": "Category:" + ("Second" if second else "First")}]
    found = {"query": {"pages": [row]}}
    if second:  # what was given in the first part is not given again
        return found | {"batchcomplete": True}
    row["extract"] = "" if title == "Blank" else f"{title} is a thing.\n\n\n== Use ==\nSee it.\n"
    if title == "Mercury":
        row["pageprops"] = {"disambiguation": ""}
    if asked != title:
        found["query"]["redirects"] = [{"from": asked, "to": title}]
    return found | {"continue": {"clcontinue": f"{number}|Second", "continue": "||extracts"}}


def views_api(query, path):
    shape = r"/views/127\.0\.0\.1:\d+/all-access/user/([^/]+)/monthly/(\d{8}00)/(\d{8}00)"
    title = re.fullmatch(shape, path)[1].replace("_", " ")
    if title not in VIEWS:
        kind = "https://mediawiki.org/wiki/HyperSwitch/errors/not_found"
        return answer({"type": kind, "title": "Not found."}, status=404)
    half = VIEWS[title] // 2
    fixed = {"article": quote(title), "granularity": "monthly", "agent": "user"}
    return {"items": [fixed | {"views": half}, fixed | {"views": VIEWS[title] - half}]}

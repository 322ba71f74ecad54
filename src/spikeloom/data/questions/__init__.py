"""Questions on articles, each with an answer that stands in the text.

sections   an article -> five sections of about equal length
claude     ask Claude (messages or batches)  ┐
cloze      rules, for those without a key    ┴-> question/answer pairs of a section
answers    what was answered, kept beside the output: nothing is paid for twice
pairs      is the answer a span of the section? -> a record, or a reason
writing    the whole way, from a source of articles to a JSONL of records
"""

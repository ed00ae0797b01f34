"""The documentation, executed: the commands that a reader types, and their output.

The language and the comment of a block say how it is tested:

- `console`: lines that begin with `$ ` are typed into one bash, in order. What they
  print is compared with the lines below, in which `...` stands for anything.
- `sh`: typed as well; every command has to succeed.
- `python`: run as a script. `<!-- with openai-0.28.1 -->` before it runs it in that
  client's environment, `<!-- in app/providers/catalog/completion_hosts.py -->` with
  that module's names.
- `json`, `yaml`: has to be what it says; a config has to work.
- `text`, or no word: is not run.
- `<!-- not run: why -->` before a block leaves it out. These are counted.

`http://127.0.0.1:8787` is a gateway with the embedded engine, at a port of its own.
"""

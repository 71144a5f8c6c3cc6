"""Scripts that complete `shmkv` in a shell: pure functions from the commands' surfaces to text.

What follows an option is completed as far as its name tells: stores by `shmkv ls --names`, files, folders, choices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from shmkv.cli.surface import Option, Surface

_STORES: Final = "shmkv ls --names 2>/dev/null"
_FOLDERS: Final = ("DIR",)
_FILES: Final = ("FILE",)
_NAMES: Final = ("NAME",)  # of `--store` and `unlink`; other names are not known to the shell


def _takes_stores(option: Option) -> bool:
    return option.value in _NAMES and option.names in ((), ("--store",))


# ---- bash ----------------------------------------------------------------------------------------

_BASH: Final = """\
# Completes `shmkv` in bash.  In ~/.bashrc:  source <(shmkv completion bash)
_shmkv() {{
    local cur=${{COMP_WORDS[COMP_CWORD]}} prev=${{COMP_WORDS[COMP_CWORD-1]}} command= word
    for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
        case $word in
            {commands}) command=$word; break ;;
        esac
    done
    COMPREPLY=()
    case $command,$prev in
{values}
    esac
    case $command in
        "") COMPREPLY=($(compgen -W "{words} --help --version" -- "$cur")) ;;
{options}
    esac
}}
complete -o default -F _shmkv shmkv
"""


def bash(surfaces: Sequence[Surface]) -> str:
    """For `source <(shmkv completion bash)`."""
    names = [each.name for each in surfaces]
    return _BASH.format(
        commands="|".join(names),
        words=" ".join(names),
        values="\n".join(_bash_values(surfaces)),
        options="\n".join(map(_bash_words, surfaces)),
    )


def _bash_values(surfaces: Sequence[Surface]) -> Iterator[str]:
    """What may follow an option: of most the same with every command."""
    cases: dict[tuple[str, str], list[str]] = {}
    for surface in surfaces:
        for option in surface.options:
            if option.value:
                for name in option.names:
                    cases.setdefault((name, _bash_value(option)), []).append(surface.name)
    for (name, found), commands in cases.items():
        alone = sum(name == other for other, _ in cases) == 1
        pattern = f"*,{name}" if alone else "|".join(f"{command},{name}" for command in commands)
        yield f"        {pattern}) {found}return ;;"


def _bash_value(option: Option) -> str:
    if _takes_stores(option):
        return f'COMPREPLY=($(compgen -W "$({_STORES})" -- "$cur")); '
    if option.choices:
        return f'COMPREPLY=($(compgen -W "{" ".join(option.choices)}" -- "$cur")); '
    if option.value in _FOLDERS:
        return 'COMPREPLY=($(compgen -d -- "$cur")); '
    return ""  # a file, as bash completes where nothing is said, or something of the user's own


def _bash_words(surface: Surface) -> str:
    words = [name for option in surface.options for name in option.names] + ["--help"]
    more = "".join(
        f" $({_STORES})" if _takes_stores(each) else "".join(f" {choice}" for choice in each.choices)
        for each in surface.arguments
    )
    return f'        {surface.name}) COMPREPLY=($(compgen -W "{" ".join(words)}{more}" -- "$cur")) ;;'


# ---- zsh -----------------------------------------------------------------------------------------

_ZSH: Final = """\
#compdef shmkv
# Completes `shmkv` in zsh.  In ~/.zshrc, behind compinit:  source <(shmkv completion zsh)
_shmkv_stores() {{ compadd -- ${{(f)"$({stores})"}} }}
_shmkv() {{
    local curcontext=$curcontext state line
    local -a commands=(
{commands}
    )
    _arguments -C '--help[help]' '--version[the version]' '1: :->command' '*:: :->rest'
    case $state in
        command) _describe command commands ;;
        rest)
            case $words[1] in
{options}
            esac ;;
    esac
}}
compdef _shmkv shmkv
"""


def zsh(surfaces: Sequence[Surface]) -> str:
    """For `source <(shmkv completion zsh)`."""
    return _ZSH.format(
        stores=_STORES,
        commands="\n".join(f"        {_in_quotes(f'{each.name}:{each.help}')}" for each in surfaces),
        options="\n".join(map(_zsh_arguments, surfaces)),
    )


def _zsh_arguments(surface: Surface) -> str:
    specs = [spec for option in surface.options for spec in _zsh_option(option)]
    specs += [f"*:{argument.value}:{_zsh_action(argument)}" for argument in surface.arguments[-1:]]
    return f"                {surface.name}) _arguments {' '.join(map(_in_quotes, specs))} ;;"


def _zsh_option(option: Option) -> list[str]:
    said = option.help.translate({ord("["): "(", ord("]"): ")", ord(":"): ";"})
    value = f":{option.value}:{_zsh_action(option)}".replace("|", " ") if option.value else ""
    return [f"{name}[{said}]{value}" for name in option.names]


def _zsh_action(option: Option) -> str:
    if _takes_stores(option):
        return "_shmkv_stores"
    if option.choices:
        return f"({' '.join(option.choices)})"
    return "_files -/" if option.value in _FOLDERS else "_files" if option.value in _FILES else " "


# ---- fish ----------------------------------------------------------------------------------------

_FISH: Final = """\
# Completes `shmkv` in fish.  In ~/.config/fish/config.fish:  shmkv completion fish | source
complete -c shmkv -n __fish_use_subcommand -f -l version -d 'print the version'
{commands}
{options}
"""


def fish(surfaces: Sequence[Surface]) -> str:
    """For `shmkv completion fish | source`."""
    return _FISH.format(
        commands="\n".join(
            f"complete -c shmkv -n __fish_use_subcommand -f -a {each.name} -d {_in_quotes(each.help)}"
            for each in surfaces
        ),
        options="\n".join(line for each in surfaces for line in _fish_lines(each)),
    )


def _fish_lines(surface: Surface) -> list[str]:
    begin = f"complete -c shmkv -n '__fish_seen_subcommand_from {surface.name}'"
    lines = [
        f"{begin} {_fish_names(option)}{_fish_value(option)} -d {_in_quotes(option.help)}" for option in surface.options
    ]
    if not any(argument.value in _FILES for argument in surface.arguments):
        lines.append(f"{begin} -f")
    for argument in surface.arguments:
        if _takes_stores(argument):
            lines.append(f"{begin} -a '({_STORES})'")
        elif argument.choices:
            lines.append(f"{begin} -a '{' '.join(argument.choices)}'")
    return lines


def _fish_names(option: Option) -> str:
    return " ".join(f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in option.names)


def _fish_value(option: Option) -> str:
    if not option.value:
        return ""
    if _takes_stores(option):
        return f" -x -a '({_STORES})'"
    if option.choices:
        return f" -x -a '{' '.join(option.choices)}'"
    if option.value in _FOLDERS:
        return " -x -a '(__fish_complete_directories)'"
    return " -r" if option.value in _FILES else " -x"


def _in_quotes(text: str) -> str:
    """A word in single quotes, as all three shells read it.

    >>> _in_quotes("it's")
    "'it'\\\\''s'"
    """
    return "'" + text.replace("'", "'\\''") + "'"


SHELLS: Final[dict[str, Callable[[Sequence[Surface]], str]]] = {"bash": bash, "zsh": zsh, "fish": fish}

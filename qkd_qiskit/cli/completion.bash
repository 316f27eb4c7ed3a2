# Completion of qkd in bash, made by `qkd completion bash`.
_qkd_words() {
  case "$1" in
@TABLE@
  esac
}

_qkd() {
  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} path=${COMP_WORDS[1]} found before=""
  COMPREPLY=()
  # bash gives --flag=value as three words
  if [[ $cur == "=" ]]; then
    cur=""
  elif [[ $prev == "=" ]]; then
    prev=${COMP_WORDS[COMP_CWORD-2]}
  fi
  if (( COMP_CWORD == 1 )); then
    path=""
  elif (( COMP_CWORD > 2 )) && [[ -n $(_qkd_words "$path ${COMP_WORDS[2]} -") ]]; then
    path="$path ${COMP_WORDS[2]}"
  fi
  if [[ $prev == --* ]] && found=$(_qkd_words "$path $prev") && [[ -n $found ]]; then
    if [[ $cur == *,* ]]; then
      before=${cur%,*},
      cur=${cur##*,}
    fi
  elif [[ $cur == -* ]]; then
    found=$(_qkd_words "$path -")
  else
    found=$(_qkd_words "$path")
  fi
  [[ $found == "@" ]] && return
  COMPREPLY=($(compgen -P "$before" -W "$found" -- "$cur"))
}
complete -o default -F _qkd qkd

#compdef qkd
# Completion of qkd in zsh, made by `qkd completion zsh`.
_qkd_words() {
  case "$1" in
@TABLE@
  esac
}

_qkd() {
  local prev=${words[CURRENT-1]} where=${words[2]} found=""
  if (( CURRENT == 2 )); then
    where=""
  elif (( CURRENT > 3 )) && [[ -n $(_qkd_words "$where ${words[3]} -") ]]; then
    where="$where ${words[3]}"
  fi
  if [[ $PREFIX == --*=* ]]; then
    prev=${PREFIX%%=*}
    compset -P '*='
  fi
  if [[ $prev == --* ]]; then
    found=$(_qkd_words "$where $prev")
    [[ -n $found ]] && compset -P '*,'
  fi
  if [[ -z $found && $PREFIX == -* ]]; then
    found=$(_qkd_words "$where -")
  elif [[ -z $found ]]; then
    found=$(_qkd_words "$where")
  fi
  if [[ -z $found || $found == "@" ]]; then
    _files
  else
    compadd -- ${=found}
  fi
}
if [[ ${funcstack[1]} == _qkd ]]; then
  _qkd "$@"
else
  compdef _qkd qkd
fi

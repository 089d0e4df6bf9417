#compdef culvert
# Completion of culvert for zsh: source <(culvert completion zsh)
_culvert_complete() {
	local -a lines described
	local line word
	lines=("${(@f)$("${words[1]}" __complete zsh "${(@)words[2,CURRENT]}" 2>/dev/null)}")
	if [[ ${lines[1]} == :files ]]; then
		[[ $PREFIX == --*=* ]] && compset -P '*='
		_files
		return
	fi
	for line in $lines; do
		word=${line%%$'\t'*}
		[[ -n $word ]] && described+=("${word//:/\\:}:${line#*$'\t'}")
	done
	_describe -V culvert described
}
if ! (( $+functions[compdef] )); then
	autoload -Uz compinit && compinit -u
fi
compdef _culvert_complete culvert

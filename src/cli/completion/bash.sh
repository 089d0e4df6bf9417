# Completion of culvert for bash: source <(culvert completion bash)
_culvert_complete() {
	local lines line
	COMPREPLY=()
	mapfile -t lines < <("$1" __complete bash "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
	if [ "${lines[0]}" = ":files" ]; then
		local cur=$2
		[ "$cur" = "=" ] && cur=
		compopt -o filenames 2>/dev/null
		mapfile -t COMPREPLY < <(compgen -f -- "$cur")
		return
	fi
	for line in "${lines[@]}"; do
		COMPREPLY+=("${line%%$'\t'*}")
	done
}
complete -F _culvert_complete culvert

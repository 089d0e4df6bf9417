# Completion of culvert for fish: culvert completion fish | source
function __culvert_complete
    set -l words (commandline -opc)
    set -l lines ($words[1] __complete fish $words[2..-1] (commandline -ct) 2>/dev/null)
    if test "$lines[1]" = :files
        set -l word (commandline -ct)
        set -l before (string match -r -- '^--[^=]*=' $word)
        set -l rest (string replace -r -- '^--[^=]*=' '' $word)
        for file in (__fish_complete_path "$rest")
            echo "$before$file"
        end
    else
        printf '%s\n' $lines
    end
end
complete -c culvert -f -a '(__culvert_complete)'

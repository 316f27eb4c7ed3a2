# Completion of qkd in fish, made by `qkd completion fish`.
function __qkd_words --argument-names key
    switch "$key"
@TABLE@
    end
end

function __qkd_complete
    set -l given (commandline -opc)
    set -l cur (commandline -ct)
    set -l where ""
    set -l before ""
    set -l prev $given[-1]
    if test (count $given) -gt 1
        set where $given[2]
    end
    if test (count $given) -gt 2; and test -n "$(__qkd_words "$where $given[3] -")"
        set where "$where $given[3]"
    end
    if string match -q -- '--*=*' $cur
        set prev (string split -m 1 = -- $cur)[1]
        set before "$prev="
        set cur (string split -m 1 = -- $cur)[2]
    end
    set -l found ""
    if string match -q -- '--*' $prev
        set found (__qkd_words "$where $prev")
        if test -n "$found"; and string match -q -- '*,*' $cur
            set before $before(string replace -r '[^,]*$' '' -- $cur)
        end
    end
    if test -z "$found"; and string match -q -- '-*' $cur
        set found (__qkd_words "$where -")
    else if test -z "$found"
        set found (__qkd_words $where)
    end
    if test -z "$found"; or test "$found" = "@"
        __fish_complete_path (commandline -ct)
    else
        for word in (string split ' ' -- $found)
            echo $before$word
        end
    end
end
complete -c qkd -f -a '(__qkd_complete)'

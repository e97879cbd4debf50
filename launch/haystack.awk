#!/usr/bin/awk -f
# A prompt of about `bytes` bytes from the text given: sentences, five needles at even depths, one question.
# usage: haystack.awk -v bytes=N -v seed=N -v prompt=FILE TEXT     prints the needles
BEGIN { RS = "^$" }
{
    srand(seed)
    n_first = split("amber silver crimson quiet golden hollow northern velvet", first, " ")
    n_second = split("falcon harbor lantern meadow compass orchard river castle", second, " ")
    n_needles = 5
    a = int(rand() * n_first)
    b = int(rand() * n_second)
    for (i = 0; i < n_needles; i++) {
        key[i] = first[(a + i) % n_first + 1] " " second[(b + 3 * i) % n_second + 1]
        number[i] = 10000 + int(rand() * 900000)
    }
    asked = int(rand() * n_needles)
    n = split($0, sentence, /\. /)
    size = 0
    next_needle = 0
    for (i = 1; size < bytes; i = i % (n - 1) + 1) {
        printf "%s. ", sentence[i] > prompt
        size += length(sentence[i]) + 2
        if (next_needle < n_needles && size > bytes * (next_needle + 0.5) / n_needles) {
            printf "The secret number for %s is %d. ", key[next_needle], number[next_needle] > prompt
            next_needle++
        }
    }
    printf "\nQuestion: What is the secret number for %s?\nAnswer:", key[asked] > prompt
    for (i = 0; i < n_needles; i++) {
        printf "%s: %s is %d\n", i == asked ? "asked" : "hidden", key[i], number[i]
    }
}

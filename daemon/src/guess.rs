//! What a misspelt word was meant to be.

/// The word that is nearest to what was `written`, if it is near enough to be meant.
pub(crate) fn probably_meant<'a>(written: &str, words: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lowercase = written.to_lowercase();
    words
        .into_iter()
        .map(|word| (strsim::damerau_levenshtein(&lowercase, &word.to_lowercase()), word))
        .filter(|&(distance, word)| distance <= 2 && distance < word.len() / 2 + 1 && word != written)
        .min()
        .map(|(_, word)| word)
}

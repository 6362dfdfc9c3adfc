/// What somebody most likely meant by a word that is none of the known ones.
package enum Spelling {
    /// - Returns: nil when none of the words is near.
    package static func nearest(to word: String, among words: [String]) -> String? {
        let limit = max(2, word.count / 3)
        return words.map { (word: $0, distance: editDistance($0, word)) }
            .filter { $0.distance <= limit }
            .min { $0.distance < $1.distance }?.word
    }

    /// How many letters must be added, removed or replaced to make one text of the other (Levenshtein).
    static func editDistance(_ a: String, _ b: String) -> Int {
        let a = Array(a.utf8)
        let b = Array(b.utf8)
        var row = Array(0...b.count)
        for i in a.indices {
            var diagonal = row[0]
            row[0] = i + 1
            for j in b.indices {
                let replaced = diagonal + (a[i] == b[j] ? 0 : 1)
                diagonal = row[j + 1]
                row[j + 1] = min(replaced, row[j] + 1, row[j + 1] + 1)
            }
        }
        return row[b.count]
    }
}

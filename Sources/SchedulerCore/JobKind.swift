import JobModel

/// What jobs have in common that run the same program: a hash of the first words of their commands.
///
/// The words are the program and its first argument, with options between them and with every number left out:
/// `python3 train.py --seed 7` and `python3 train.py --seed 8` are of one kind, `python3 tain.py` is of another. In a
/// shell line, variables that are set before the program do not count.
struct JobKind: Hashable, Sendable {
    private let hash: UInt64

    /// Words that are looked at, and bytes of each of them.
    private static let maximumWords = 4
    private static let maximumBytes = 256

    init(_ command: JobTask.Command) {
        switch command {
        case .arguments(let arguments): self.init(words: arguments.prefix(Self.maximumWords).map { Substring($0) })
        case .shell(let line):
            let start = line.prefix(Self.maximumWords * Self.maximumBytes)
            let words = start.split { $0 == " " || $0 == "\t" || $0 == "\n" }.drop { Self.isAssignment($0) }
            self.init(words: words.prefix(Self.maximumWords))
        }
    }

    private init(words: some Collection<Substring>) {
        var hash: UInt64 = 0xcbf2_9ce4_8422_2325
        func mix(_ byte: UInt8) { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01b3 }
        var names = 0
        for word in words {
            var isInNumber = false
            for byte in word.utf8.prefix(Self.maximumBytes) {
                let isDigit = (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte)
                if !isDigit { mix(byte) } else if !isInNumber { mix(UInt8(ascii: "0")) }
                isInNumber = isDigit
            }
            mix(0)
            if word.utf8.first != UInt8(ascii: "-") { names += 1 }
            if names == 2 { break }
        }
        self.hash = hash
    }

    /// `NAME=value` before the program.
    private static func isAssignment(_ word: Substring) -> Bool {
        guard let sign = word.utf8.firstIndex(of: UInt8(ascii: "=")), sign != word.utf8.startIndex else { return false }
        return word.utf8[..<sign].allSatisfy { byte in
            switch byte {
            case UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "_"),
                UInt8(ascii: "0")...UInt8(ascii: "9"):
                true
            default: false
            }
        }
    }
}

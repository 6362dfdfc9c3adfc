import JobModel
import ServiceSupport

/// How far a wait for many jobs is: a bar on a terminal, nothing elsewhere.
struct Progress {
    private let total: Int
    private let paint = Paint(.error)
    private let isShown: Bool
    private var ended = 0
    private var failed = 0

    init(total: Int) {
        self.total = total
        isShown = StandardStream.error.isTerminal && total > 1
    }

    mutating func add(_ state: JobState) {
        ended += 1
        if state != .done { failed += 1 }
        show()
    }

    func show() {
        guard isShown else { return }
        StandardStream.error.write(Array("\r\u{1B}[K\(Self.line(ended, failed, total, paint))".utf8))
    }

    /// Takes the bar away, so that something else can be printed.
    func clear() {
        guard isShown else { return }
        StandardStream.error.write(Array("\r\u{1B}[K".utf8))
    }

    static func line(_ ended: Int, _ failed: Int, _ total: Int, _ paint: Paint) -> String {
        let width = 40
        let filled = total > 0 ? width * ended / total : width
        let bar = String(repeating: "█", count: filled) + String(repeating: "·", count: width - filled)
        let failures = failed > 0 ? ", " + paint("\(failed) not done", .red) : ""
        return "\(bar) \(ended)/\(total)\(failures)"
    }
}

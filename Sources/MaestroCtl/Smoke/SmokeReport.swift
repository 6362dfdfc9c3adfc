import ServiceSupport
import Synchronization
import WireJSON

/// What the checks came to, told one by one.
final class SmokeReport: Sendable {
    private let isJSON: Bool
    private let paint = Paint(.output)
    private let counts = Mutex((passed: 0, failed: 0))

    init(isJSON: Bool) { self.isJSON = isJSON }

    /// - Parameter detail: what was seen, or why it failed.
    func add(_ check: String, passed: Bool, seconds: Double, detail: String) {
        counts.withLock { counts in
            if passed { counts.passed += 1 } else { counts.failed += 1 }
        }
        if isJSON {
            Console.print([
                "check": .string(check), "ok": .bool(passed), "seconds": .double((seconds * 1000).rounded() / 1000),
                "detail": .string(detail),
            ])
            return
        }
        let verdict = paint(passed ? "PASS" : "FAIL", passed ? .green : .red)
        let time = Printable.duration(seconds)
        let line = Self.padded(check, 34) + Self.padded(time, 8) + Printable.line(detail)
        // A failure is told whole; what a success saw may be cut.
        Console.print("\(verdict)  " + Printable.shortened(line, to: Console.width - 6, isCut: passed))
    }

    /// Says how it went in all.
    /// - Returns: whether every check passed.
    func conclude() -> Bool {
        let (passed, failed) = counts.withLock { $0 }
        if !isJSON {
            let words = failed == 0 ? "all \(passed) checks passed" : "\(failed) of \(passed + failed) checks failed"
            Console.print(paint(words, failed == 0 ? .green : .red))
        }
        return failed == 0 && passed > 0
    }

    private static func padded(_ text: String, _ width: Int) -> String {
        text + String(repeating: " ", count: max(1, width - text.count))
    }
}

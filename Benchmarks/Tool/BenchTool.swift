import ArgumentParser
import Foundation
import ProgramEntry
import WireJSON

/// What benchmarks need that must be fast or must see inside: Benchmarks/bench.py runs it. It is in no package.
@main
struct BenchTool: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "maestro-bench",
        abstract: "Parts of the benchmarks; each prints one line of JSON.",
        subcommands: [CoreCommand.self, DispatchCommand.self, FleetCommand.self]
    )

    static func main() async { await runProgram() }
}

/// Times in order, and what is said of them.
struct Samples {
    private(set) var values: [Double] = []

    mutating func add(_ value: Double) { values.append(value) }

    var json: JSON {
        guard !values.isEmpty else { return .null }
        let sorted = values.sorted()
        func at(_ share: Double) -> JSON { .double(sorted[min(sorted.count - 1, Int(Double(sorted.count) * share))]) }
        return [
            "mean": .double(values.reduce(0, +) / Double(values.count)), "p50": at(0.5), "p99": at(0.99), "max": at(1),
            "count": .int(values.count),
        ]
    }
}

/// A process that is watched from outside.
struct WatchedProcess {
    let name: String
    let id: Int32

    /// Reads `name=pid`.
    init?(_ text: String) {
        let parts = text.split(separator: "=")
        guard parts.count == 2, let id = Int32(parts[1]) else { return nil }
        name = String(parts[0])
        self.id = id
    }

    private init(name: String, id: Int32) {
        self.name = name
        self.id = id
    }

    static let this = WatchedProcess(name: "bench", id: getpid())

    /// User and system time so far, in seconds; nil when there is no such process.
    var processorSeconds: Double? {
        guard let text = contents("stat"), let end = text.lastIndex(of: ")") else { return nil }
        let fields = text[end...].split(separator: " ")
        guard fields.count > 13, let user = Double(fields[12]), let system = Double(fields[13]) else { return nil }
        return (user + system) / Double(sysconf(Int32(_SC_CLK_TCK)))
    }

    /// Resident memory in MB (2^20 bytes).
    var residentMegabytes: Double? {
        guard let line = contents("status")?.split(separator: "\n").first(where: { $0.hasPrefix("VmRSS") }),
            let kilobytes = line.split(separator: " ").dropFirst().first.flatMap({ Double($0) })
        else { return nil }
        return kilobytes / 1024
    }

    private func contents(_ file: String) -> String? {
        FileManager.default.contents(atPath: "/proc/\(id)/\(file)").map { String(decoding: $0, as: UTF8.self) }
    }
}

func seconds(_ duration: Duration) -> Double {
    Double(duration.components.seconds) + Double(duration.components.attoseconds) * 1e-18
}

func show(_ json: JSON) { print(String(decoding: json.encoded(), as: UTF8.self)) }

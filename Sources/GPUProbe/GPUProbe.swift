import CHeap
import GPUTelemetry
import Glibc
import JobModel
import WireJSON

/// A small program around GPUTelemetry for its tests: they start it with the libraries of a made-up machine loaded
/// before it.
///
///     gpu-probe list | json | env N | policy N
///     gpu-probe sample N         a sample for each line of stdin; the line holds the pids to watch
///     gpu-probe soak N COUNT     COUNT samples, and what they cost
///     gpu-probe uevents          what the kernel has said of cards, for each line of stdin
///
/// ROOT names the root of what is installed, GPU_PINS and GPU_EXCLUDE the cards.
@main
struct GPUProbe {
    static func main() async {
        do {
            try await run(CommandLine.arguments)
        } catch {
            let message = Array("gpu-probe: \(error)\n".utf8)
            _ = unsafe write(STDERR_FILENO, message, message.count)
            exit(66)
        }
    }

    private static func run(_ arguments: [String]) async throws(InventoryError) {
        if arguments.dropFirst().first == "uevents" { return uevents() }
        let paths = SystemPaths(root: variable("ROOT"))
        let rules = try InventoryRules(pins: words("GPU_PINS"), exclude: words("GPU_EXCLUDE"))
        let inventory = CardInventory.scan(rules: rules, paths: paths)
        func card() throws(InventoryError) -> Card {
            try inventory.card(arguments.count > 2 ? Int(arguments[2]) ?? -1 : -1)
        }
        switch arguments.count > 1 ? arguments[1] : "" {
        case "list": print(inventory.table)
        case "json": print(String(decoding: inventory.json.encoded(), as: UTF8.self))
        case "env":
            let binding = CardBinding(to: try card())
            for (name, value) in binding.variables.sorted(by: { $0.key < $1.key }) { print("\(name)=\(value)") }
        case "policy": print(DevicePolicy.lines(for: try card(), paths: paths).joined(separator: "\n"))
        case "sample": await samples(of: try card(), paths: paths)
        case "soak": await soak(try card(), count: arguments.count > 3 ? Int(arguments[3]) ?? 0 : 0)
        default: exit(64)
        }
    }

    /// Says "listening" first.
    private static func uevents() {
        let socket: UEventSocket
        do throws(SensorFault) {
            socket = try UEventSocket()
        } catch {
            print("cannot listen: \(error)")
            exit(69)
        }
        print("listening")
        fflush(nil)
        while readLine() != nil {
            let heard = socket.take().map { event -> JSON in
                var object: JSONObject = ["action": .string(event.properties["ACTION"] ?? "")]
                object["pci"] = event.address.map { .string($0.description) }
                object["severity"] = event.finding.map { .string($0.severity.rawValue) }
                return .object(object)
            }
            print(String(decoding: JSON.array(heard).encoded(), as: UTF8.self))
            fflush(nil)
        }
    }

    private static func samples(of card: Card, paths: SystemPaths) async {
        let reader = CardReader(card, paths: paths)
        var health = HealthWatch()
        while let line = readLine() {
            let sample = await reader.sample(processes: line.split(separator: " ").compactMap { Int32($0) })
            var fields = sample.metrics()
            let findings = sample.signs.fresh.map { health.examine($0) } ?? []
            fields["findings"] = .array(findings.map { .string($0.reason.rawValue) })
            print(String(decoding: JSON.object(fields).encoded(), as: UTF8.self))
            fflush(nil)
        }
    }

    /// The memory and descriptors before and after, with the CPU time of one sample: all that a worker does with it,
    /// from the sensors to the message.
    private static func soak(_ card: Card, count: Int) async {
        let reader = CardReader(card)
        var keeper = CardGuard(
            limits: ThermalLimits(hardware: card.temperatureLimits.critical, maximum: 78),
            allowsUnknownTemperature: false,
            linkBaseline: nil
        )
        let job = JobID("soak")
        func sample(_ number: Int) async {
            let jobs = job.map { [getpid(): $0] } ?? [:]
            let sample = await reader.sample(processes: jobs.keys.sorted())
            let now = Timestamp(nanoseconds: Int64(number) * 5_000_000_000)
            let judged = keeper.judge(sample, heard: [], at: now)
            var metrics = sample.metrics(jobs: jobs)
            metrics["hold"] = judged.hold?.json
            _ = JSON.object(metrics).encoded()
        }
        // What is made once, and the allocator's own stock, is there after some thousand samples.
        for number in 0..<4000 { await sample(number) }
        let before = Resources.now
        for number in 0..<count { await sample(4000 + number) }
        let after = Resources.now
        let result: JSON = [
            "heap_bytes_before": .int(before.heapBytes),
            "heap_bytes_after": .int(after.heapBytes),
            "rss_kib_before": .int(before.residentKiB),
            "rss_kib_after": .int(after.residentKiB),
            "fds_before": .int(before.descriptors),
            "fds_after": .int(after.descriptors),
            "threads_before": .int(before.threads),
            "threads_after": .int(after.threads),
            "cpu_us_per_sample": .double(
                Double(after.cpuMicroseconds - before.cpuMicroseconds) / Double(max(1, count))
            ),
        ]
        print(String(decoding: result.encoded(), as: UTF8.self))
    }

    private static func variable(_ name: String) -> String {
        guard let value = unsafe getenv(name) else { return "" }
        return unsafe String(cString: value)
    }

    private static func words(_ name: String) -> [String] { variable(name).split(separator: ",").map(String.init) }
}

/// What this process uses now.
private struct Resources {
    let residentKiB: Int
    let heapBytes: Int
    let descriptors: Int
    let threads: Int
    let cpuMicroseconds: Int

    static var now: Resources {
        var usage = rusage()
        unsafe getrusage(__rusage_who_t(RUSAGE_SELF.rawValue), &usage)
        let seconds = usage.ru_utime.tv_sec + usage.ru_stime.tv_sec
        let microseconds = Int(usage.ru_utime.tv_usec) + Int(usage.ru_stime.tv_usec)
        return Resources(
            residentKiB: status("VmRSS:"),
            heapBytes: Int(cheap_bytes_in_use()),
            descriptors: entries("/proc/self/fd"),
            threads: status("Threads:"),
            cpuMicroseconds: seconds * 1_000_000 + microseconds
        )
    }

    private static func status(_ key: String) -> Int {
        guard let file = unsafe fopen("/proc/self/status", "re") else { return 0 }
        defer { unsafe fclose(file) }
        var buffer = [CChar](repeating: 0, count: 256)
        while unsafe fgets(&buffer, Int32(buffer.count), file) != nil {
            let line = String(decoding: buffer.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
            guard line.hasPrefix(key) else { continue }
            return line.split(whereSeparator: \.isWhitespace).dropFirst().first.flatMap { Int($0) } ?? 0
        }
        return 0
    }

    private static func entries(_ directory: String) -> Int {
        guard let handle = unsafe opendir(directory) else { return 0 }
        defer { unsafe closedir(handle) }
        var count = 0
        while unsafe readdir(handle) != nil { count += 1 }
        return count
    }
}

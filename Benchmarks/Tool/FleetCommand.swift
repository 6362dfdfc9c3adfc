import ArgumentParser
import Foundation
import WireJSON

/// Cards that only tell of themselves.
struct FleetCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "fleet",
        abstract: "What the signs of life of many cards cost: a heartbeat and a reading of each every 5 s.",
        discussion: "Name the processes to be watched with --watch maestro=PID."
    )

    @OptionGroup var pool: PoolOptions
    @Option(name: .customLong("seconds"), help: "How long it is measured, after a full round.")
    var measured = 20.0

    func run() async throws {
        let fleet = try await SimulatedFleet(pool)
        try await fleet.start()
        try await Task.sleep(for: .seconds(6))
        let before = pool.processes.map(\.processorSeconds)
        let clock = ContinuousClock()
        let start = clock.now
        try await Task.sleep(for: .seconds(measured))
        let elapsed = seconds(clock.now - start)
        var processes = JSONObject()
        for (process, earlier) in zip(pool.processes, before) {
            guard let now = process.processorSeconds, let earlier else { continue }
            processes[process.name] = [
                "cpu_percent": .double(100 * (now - earlier) / elapsed),
                "resident_mb": .double(process.residentMegabytes ?? 0),
            ]
        }
        show(["cards": .int(pool.cardCount), "seconds": .double(elapsed), "processes": .object(processes)])
        await fleet.stop()
    }
}

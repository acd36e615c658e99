import { type DynamicModule, type InjectionToken, Module } from "@nestjs/common";
import { DATABASE, Inbox } from "./inbox";
import { MatrixWebhooksController, SECRET } from "./matrix-webhooks.controller";

/** In your AppModule, with TypeORM: `MatrixWebhooksModule.register(secret, DataSource)`. */
@Module({})
export class MatrixWebhooksModule {
  static register(secret: string, database: InjectionToken): DynamicModule {
    return {
      module: MatrixWebhooksModule,
      controllers: [MatrixWebhooksController],
      providers: [
        Inbox,
        { provide: SECRET, useValue: secret },
        { provide: DATABASE, useExisting: database },
      ],
    };
  }
}
